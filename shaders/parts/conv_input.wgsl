// The convolved channels [x | B | C]: which column before the convolution feeds one, and which ones a head reads.

fn conv_input(c: u32) -> u32 {
    if (params.repeated == 0u) {
        return c;
    }
    // x and B were repeated over the heads that share a group: [x_rep | B_rep | C].
    let group_width = params.repeated / params.repeat;
    if (c < 2u * params.repeated) {
        let part = c / params.repeated;
        let head = (c % params.repeated) / params.head_dim;
        return part * group_width + head / params.repeat * params.head_dim + c % params.head_dim;
    }
    return 2u * group_width + c - 2u * params.repeated;
}

// First channel of the head's x among the convolved channels; that of its B lies b_offset further.
fn x_channel(head: u32) -> u32 {
    if (params.repeated != 0u) {
        return head * params.head_dim;
    }
    return head / params.repeat * params.head_dim;
}
