// Carries the convolution's state over a segment: the last four inputs of each channel that `head` owns, oldest first.
// A head owns its channels of C, and of x and B when they are its own or it is the first of the heads that share them.

fn carry_channel(c: u32, segment: Segment) {
    let taps = segment.slot * params.state_stride + params.taps_offset + 4u * c;
    let input = params.in_offset + conv_input(c);
    var next = vec4<f32>(0.0);
    for (var i = 0u; i < 4u; i++) {
        // Input i of the last four is row count - 4 + i of the segment, or an older tap.
        if (segment.count + i >= 4u) {
            next[i] = zxbcdt[(segment.first + segment.count + i - 4u) * params.in_stride + input];
        } else {
            next[i] = state[taps + segment.count + i];
        }
    }
    for (var i = 0u; i < 4u; i++) {
        state[taps + i] = next[i];
    }
}

fn carry_conv(segment: Segment, head: u32, lane: u32, lanes: u32) {
    for (var i = lane; i < params.head_dim; i += lanes) {
        carry_channel(params.c_offset + head * params.head_dim + i, segment);
        if (params.repeated != 0u || head % params.repeat == 0u) {
            carry_channel(x_channel(head) + i, segment);
            carry_channel(params.b_offset + x_channel(head) + i, segment);
        }
    }
}
