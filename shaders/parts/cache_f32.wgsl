// A cached row in f32: four words a quad, latent quads first, then the quads of the roped k_pe. `tile_vec4` reads the
// words of a row of the kernel's tile.

fn latent_quad(row: u32, q: u32) -> vec4<f32> { return bitcast<vec4<f32>>(tile_vec4(row, q)); }

fn rope_quad(row: u32, q: u32) -> vec4<f32> { return latent_quad(row, LATENT_QUADS + q); }
