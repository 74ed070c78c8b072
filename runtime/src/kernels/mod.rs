//! One file for each shader of `shaders/`, of the same name: a struct of named buffers and numbers that checks them and
//! returns a [`Dispatch`]. Kernels know no configuration and no model; what varies between adapters ([`Target`]) and
//! between weight formats ([`Matrix`]) is chosen here, as text parts joined to the kernel's file.

pub mod add_parts;
pub mod coded;
pub mod embed;
pub mod gated_norm;
pub mod gqa_append;
pub mod gqa_attend;
pub mod gqa_combine;
pub mod half_rows;
pub mod layernorm;
pub mod mamba1_scan;
pub mod matmul;
pub mod matmul_coop;
pub mod matmul_i8;
pub mod matrix;
pub mod matvec;
pub mod matvec_i8;
pub mod mla_attend;
pub mod mla_attend_coop;
pub mod mla_attend_wide;
pub mod mla_combine;
pub mod mla_combine_coop;
pub mod mla_latent;
pub mod mla_project;
pub mod mla_query;
pub mod mla_query_coop;
pub mod product;
pub mod quantize_rows;
pub mod read_bandwidth;
pub mod rmsnorm;
pub mod rope;
pub mod sample;
pub mod slots;
pub mod ssm_chunk;
pub mod ssm_conv;
pub mod ssm_scan;
pub mod ssm_shape;
pub mod ssm_states;
mod twins;

pub use matrix::Matrix;
pub use twins::{Axis, Twins};

use crate::gpu::{Access, Binding, Buffer, Cost, Dispatch, Grid, Kernel, Limits};

/// The text of a file of `shaders/`.
macro_rules! shader {
    ($path:literal) => {
        include_str!(concat!("../../../shaders/", $path))
    };
}
pub(crate) use shader;

/// What kernels are chosen for.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Which of several kernels for one thing run.
    pub twins: Twins,
    /// Rows that a step may have.
    pub max_rows: u32,
    /// Slots, and so the rows of a batch.
    pub slots: u32,
    pub limits: Limits,
}

impl Target {
    /// The part that sums over the `wg` lanes of a workgroup. Subgroups must be full: llvmpipe (Mesa 22.3) adds lanes of
    /// the last one that are not there.
    pub(crate) fn lanes(self, wg: usize) -> &'static str {
        let full = wg.is_multiple_of(64);
        if self.twins.subgroups && full {
            shader!("parts/lanes_subgroup.wgsl")
        } else {
            shader!("parts/lanes_plain.wgsl")
        }
    }

    /// The constant of `parts/teams_subgroup.wgsl` for teams of so many lanes.
    pub(crate) fn shared(self, team: usize) -> Option<(&'static str, f64)> {
        self.twins.subgroups.then(|| ("SHARED", (self.limits.subgroup as usize).min(team) as f64))
    }

    /// Folds `MAX_ROWS` into the constants of a kernel that reads the step.
    pub(crate) fn constants(self, mut rest: Vec<(&'static str, f64)>) -> Vec<(&'static str, f64)> {
        rest.push(("MAX_ROWS", f64::from(self.max_rows)));
        rest
    }
}

/// The part every kernel that reads the step is joined to.
pub(crate) const STEP: &str = shader!("parts/step.wgsl");

/// Buffer `0` and then inputs and outputs in their order, from binding 2 on.
pub(crate) fn bindings(step: &Buffer, inputs: &[&Buffer], outputs: &[&Buffer]) -> Vec<Binding> {
    let mut all = vec![Binding { number: 0, access: Access::Read, buffer: step.clone() }];
    for buffer in inputs {
        all.push(Binding { number: all.len() as u32 + 1, access: Access::Read, buffer: (*buffer).clone() });
    }
    for buffer in outputs {
        all.push(Binding { number: all.len() as u32 + 1, access: Access::ReadWrite, buffer: (*buffer).clone() });
    }
    all
}

/// A buffer that a kernel reads at a binding.
pub(crate) fn read(number: u32, buffer: &Buffer) -> Binding {
    Binding { number, access: Access::Read, buffer: buffer.clone() }
}

/// Puts a dispatch together. `params` are the words of the shader's `Params`, floats by their bits.
pub(crate) fn dispatch(
    label: &str,
    name: &'static str,
    sources: Vec<&'static str>,
    constants: Vec<(&'static str, f64)>,
    params: &[u32],
    bindings: Vec<Binding>,
    grid: Grid,
) -> Dispatch {
    Dispatch {
        label: format!("{label}.{name}"),
        kernel: Kernel { name, sources, constants },
        params: bytemuck::cast_slice(params).to_vec(),
        bindings,
        grid,
        forced_by_limits: false,
        cost: Cost::default(),
    }
}

/// The shader part that names the size of cooperative matrices: 16 x 16, or 8 x 8.
pub(crate) fn matrix_size(side: u32) -> &'static str {
    if side == 16 { shader!("parts/coop_16.wgsl") } else { shader!("parts/coop_8.wgsl") }
}

/// Checks that a buffer holds at least so many f32 or u32.
///
/// # Panics
/// When it does not: a defect of the plan.
pub(crate) fn assert_words(buffer: &Buffer, words: u64, what: &str) {
    assert!(buffer.size() >= 4 * words, "{what}: {buffer:?} is smaller than {words} words");
}
