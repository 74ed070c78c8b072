//! The SwiGLU MLP of every layer: `x += down(silu(gate(n)) * up(n))`, n = rmsnorm(x).

use super::work::Work;
use super::{Pass, Tensors};
use crate::gpu::Dispatch;
use crate::kernels::Matrix;
use crate::kernels::product::{Epilogue, Norm};

/// Weights of one layer's MLP.
#[derive(Debug)]
pub struct Mlp {
    /// [gate_proj; up_proj].
    gate_up: Matrix,
    down: Matrix,
}

impl Mlp {
    /// `prefix` is `"model.layers.N.mlp."`.
    pub fn new(hidden: usize, intermediate: usize, prefix: &str, tensors: &mut Tensors) -> Self {
        let name = |tail: &str| format!("{prefix}{tail}");
        let (gate, up) = (name("gate_proj.weight"), name("up_proj.weight"));
        Self {
            gate_up: tensors.stacked(&name("gate_up"), &[(&gate, intermediate), (&up, intermediate)], hidden, 1),
            down: tensors.matrix(&name("down_proj.weight"), hidden, intermediate),
        }
    }

    /// `norm` is that of the layer's second half.
    pub fn dispatches(&self, label: &str, work: &Work, norm: Norm<'_>, pass: Pass) -> Vec<Dispatch> {
        let (x, act) = (work.x.all(), work.act.all());
        let mut all = work.product(x, Some(norm), &self.gate_up, act, Epilogue::SwiGlu).dispatches(
            &format!("{label}.gate_up"),
            pass.width,
            pass.target,
        );
        all.extend(work.product(act, None, &self.down, x, Epilogue::Add).dispatches(
            &format!("{label}.down"),
            pass.width,
            pass.target,
        ));
        all
    }
}
