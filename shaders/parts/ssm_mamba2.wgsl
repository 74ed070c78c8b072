// Mamba2 as MambaInLlama has it. in_proj's rows are [z | x | B | C | dt], N = P. `repeat` heads share the columns of x and
// B, `sharers` the convolved channels: as many, or 1 where x and B are repeated before the convolution. C is each head's
// own.

const SILU: bool = true;    // of what was convolved
const SCALES: bool = true;  // x by the time step

// (A_log, D, dt_bias) from what is kept of a head.
fn rates(head: vec4<f32>) -> vec3<f32> {
    return head.xyz;
}

// The first column of z.
fn z_column() -> u32 {
    return 0u;
}

// The first column of a head's part before the convolution.
fn head_input(head: u32, part: u32) -> u32 {
    let own = select(head, head / params.repeat, part < 2u);
    return params.d_inner + part * params.d_shared + own * 4u * P_QUADS;
}

// The first channel of a head's part after it.
fn head_channel(head: u32, part: u32) -> u32 {
    return part * params.shared_channels + select(head, head / params.sharers, part < 2u) * 4u * P_QUADS;
}

fn channels() -> u32 {
    return 2u * params.shared_channels + params.d_inner;
}

// (the first head that reads a channel, its part, the channel's place in that).
fn reader_of(channel: u32) -> vec3<u32> {
    let part = min(channel / params.shared_channels, 2u);
    let inside = channel - part * params.shared_channels;
    let width = 4u * P_QUADS;
    return vec3<u32>(inside / width * select(1u, params.sharers, part < 2u), part, inside % width);
}
