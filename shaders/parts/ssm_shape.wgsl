// The channels of a Mamba2 layer, by heads. Of each part (0 x, 1 B, 2 C) a head reads head_dim columns of in_proj's
// rows [z | x | B | C | dt] and as many of the convolved channels [x | B | C]. `repeat` heads share the columns of x and B,
// `sharers` their channels: as many, or 1 where x and B are repeated before the convolution.
//
// A slot's state is [heads, P, N], then [heads, 3, head_dim] quads: the last four inputs of each channel, oldest first.
// Heads that share a channel keep its inputs each for itself, so that none has to wait until the others have read them.
//
// `Params` begins with the numbers of `SsmShape::params`.

// The first column of a head's part before the convolution.
fn head_input(head: u32, part: u32) -> u32 {
    return params.d_inner + part * params.d_xb + select(head, head / params.repeat, part < 2u) * params.head_dim;
}

// The first channel of a head's part after it.
fn head_channel(head: u32, part: u32) -> u32 {
    return part * params.xb_channels + select(head, head / params.sharers, part < 2u) * params.head_dim;
}

fn dt_column(head: u32) -> u32 {
    return 2u * (params.d_inner + params.d_xb) + head;
}

// Quads of a slot's state.
fn state_quads() -> u32 {
    return params.d_inner * (params.head_dim / 4u + 3u);
}

// The quad of row p of a head's S.
fn scan_quad(slot: u32, head: u32, p: u32) -> u32 {
    return slot * state_quads() + (head * params.head_dim + p) * (params.head_dim / 4u);
}

// The quad of the first channel of a head's part.
fn taps_quad(slot: u32, head: u32, part: u32) -> u32 {
    return slot * state_quads() + params.d_inner * (params.head_dim / 4u) + (3u * head + part) * params.head_dim;
}
