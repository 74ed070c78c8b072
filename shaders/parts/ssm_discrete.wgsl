// Discrete Mamba2 as Llamba has it. in_proj's rows are [x | B | C | z | a], the convolved channels first, and `repeat`
// heads share the columns of B and C. No SiLU follows the convolution, x is not scaled, and the decay exp(-softplus(a))
// comes from the token alone: A = -1 and no bias.

const SILU: bool = false;
const SCALES: bool = false;

// (A_log, D, dt_bias): of a head D alone is kept.
fn rates(head: vec4<f32>) -> vec3<f32> {
    return vec3<f32>(0.0, head.x, 0.0);
}

fn z_column() -> u32 {
    return params.d_inner + 2u * params.d_shared;
}

fn head_input(head: u32, part: u32) -> u32 {
    let shared_part = params.d_inner + (part - 1u) * params.d_shared + head / params.repeat * 4u * N_QUADS;
    return select(head * 4u * P_QUADS, shared_part, part > 0u);
}

fn head_channel(head: u32, part: u32) -> u32 {
    return head_input(head, part);
}

fn channels() -> u32 {
    return params.d_inner + 2u * params.d_shared;
}

fn reader_of(channel: u32) -> vec3<u32> {
    if (channel < params.d_inner) {
        return vec3<u32>(channel / (4u * P_QUADS), 0u, channel % (4u * P_QUADS));
    }
    let inside = channel - params.d_inner;
    let width = 4u * N_QUADS;
    let part = inside / params.d_shared;
    return vec3<u32>(inside % params.d_shared / width * params.repeat, 1u + part, inside % width);
}
