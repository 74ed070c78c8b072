//! The SwiGLU MLP of every layer: `x += down(silu(gate(n)) * up(n))`, n = rmsnorm(x).

use super::work::Work;
use super::{Pass, Tensors};
use crate::config::MlpConfig;
use crate::gpu::{Buffer, Dispatch};
use crate::kernels::product::{Epilogue, Norm, Product};
use crate::kernels::{Matrix, Target};

/// Weights of one layer's MLP.
#[derive(Debug)]
pub struct Mlp {
    /// [gate_proj; up_proj].
    gate_up: Matrix,
    down: Matrix,
}

impl Mlp {
    pub fn new(config: &MlpConfig, hidden: usize, tensors: &mut Tensors) -> Self {
        let intermediate = config.intermediate_size;
        let name = |tail: &str| format!("{}{tail}", config.prefix);
        let (gate, up) = (name("gate_proj.weight"), name("up_proj.weight"));
        Self {
            gate_up: tensors.stacked(&name("gate_up"), &[(&gate, intermediate), (&up, intermediate)], hidden, 1),
            down: tensors.matrix(&name("down_proj.weight"), hidden, intermediate),
        }
    }

    /// `norm` is that of the layer's second half, `next` the weight of the one after it.
    pub fn dispatches(&self, label: &str, work: &Work, norm: Norm<'_>, next: &Buffer, pass: Pass) -> Vec<Dispatch> {
        let (x, act, target) = (work.x.all(), work.act.all(), pass.target);
        let codes = pass.codes(work, Product::can_code(&self.gate_up, Epilogue::SwiGlu, target));
        let gate_up = Product {
            x_codes: pass.x_codes(work),
            y_codes: codes,
            ..work.product(x, Some(norm), &self.gate_up, act, Epilogue::SwiGlu)
        };
        let down = Product {
            x_codes: codes.map(|c| c.codes),
            y_codes: pass.codes_of_x(work, next),
            ..work.product(act, None, &self.down, x, Epilogue::Add)
        };
        let mut all = gate_up.dispatches(&format!("{label}.gate_up"), pass.width, target);
        all.extend(down.dispatches(&format!("{label}.down"), pass.width, target));
        all
    }

    /// Whether what it adds to the residual stream can be left coded.
    pub fn can_code(&self, target: Target) -> bool {
        Product::can_code(&self.down, Epilogue::Add, target)
    }
}
