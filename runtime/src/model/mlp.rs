//! The SwiGLU MLP of every layer: `x += down(silu(gate(n)) * up(n))`.

use super::work::Work;
use super::{Pass, Tensors};
use crate::gpu::Dispatch;
use crate::kernels::Matrix;
use crate::kernels::matmul::{Epilogue, MatMul};

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

    pub fn dispatches(&self, label: &str, work: &Work, pass: Pass) -> Vec<Dispatch> {
        let step = &work.step;
        let (n, act, x) = (work.n.all(), work.act.all(), work.x.all());
        let mut all =
            MatMul { step, x: n, weight: &self.gate_up, y: act, epilogue: Epilogue::SwiGlu, logit_rows: false }
                .dispatches(&format!("{label}.gate_up"), pass.width, pass.target);
        all.extend(
            MatMul { step, x: act, weight: &self.down, y: x, epilogue: Epilogue::Add, logit_rows: false }.dispatches(
                &format!("{label}.down"),
                pass.width,
                pass.target,
            ),
        );
        all
    }
}
