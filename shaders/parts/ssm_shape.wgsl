// What a slot carries of a Mamba2 layer: [heads, P, N], then [heads, P + 2 N] quads, the last four inputs of each channel
// of x, B and C (parts 0, 1 and 2 of a head), oldest first. Heads that share a channel keep its inputs each for itself,
// so that none has to wait until the others have read them.
//
// Where a head's parts are among in_proj's columns and convolved channels: parts/ssm_mamba2.wgsl, parts/ssm_discrete.wgsl.
// `Params` begins with the numbers of `SsmShape::params`.

override P_QUADS: u32;  // P / 4: head_dim
override N_QUADS: u32;  // N / 4: d_state

// The first value of a head's part among all of the head's.
fn part_first(part: u32) -> u32 {
    return select(0u, 4u * (P_QUADS + (part - 1u) * N_QUADS), part > 0u);
}

// The quad of row p of a head's S.
fn scan_quad(slot: u32, head: u32, p: u32) -> u32 {
    return slot * params.state_quads + (head * 4u * P_QUADS + p) * N_QUADS;
}

// The quad of the first channel of a head's part.
fn taps_quad(slot: u32, head: u32, part: u32) -> u32 {
    return slot * params.state_quads + params.scan_quads + head * 4u * (P_QUADS + 2u * N_QUADS) + part_first(part);
}

fn dt_column(head: u32) -> u32 {
    return 2u * (params.d_inner + params.d_shared) + head;
}
