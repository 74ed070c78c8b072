//! The MLP of every layer: `x += down(silu(gate(n)) * up(n))`, or `x += down(relu(up(n))^2)`, n = norm(x).

use super::norm::Input;
use super::work::Work;
use super::{Pass, Tensors};
use crate::config::{MlpConfig, MlpKind};
use crate::gpu::{Buffer, Dispatch};
use crate::kernels::product::{Epilogue, Product};
use crate::kernels::{Matrix, Target};

/// Weights of one layer's MLP.
#[derive(Debug)]
pub struct Mlp {
    /// [gate_proj; up_proj], or up_proj alone.
    up: Matrix,
    /// "gate_up" or "up".
    up_label: &'static str,
    activation: Epilogue,
    down: Matrix,
}

impl Mlp {
    pub fn new(config: &MlpConfig, hidden: usize, tensors: &mut Tensors) -> Self {
        let intermediate = config.intermediate_size;
        let name = |tail: &str| format!("{}{tail}", config.prefix);
        let (gate, up) = (name("gate_proj.weight"), name("up_proj.weight"));
        let (up_label, activation, up) = match config.kind {
            MlpKind::SwiGlu => {
                let parts = [(&*gate, intermediate), (&*up, intermediate)];
                ("gate_up", Epilogue::SwiGlu, tensors.stacked(&name("gate_up"), &parts, hidden, 1))
            }
            MlpKind::Relu2 => ("up", Epilogue::Relu2, tensors.matrix(&up, intermediate, hidden)),
        };
        Self { up, up_label, activation, down: tensors.matrix(&name("down_proj.weight"), hidden, intermediate) }
    }

    /// `input` is what the norm of the layer's second half makes, `next` the gain of the one after it, if it has one.
    pub fn dispatches(
        &self,
        label: &str,
        work: &Work,
        input: Input<'_>,
        next: Option<&Buffer>,
        pass: Pass,
    ) -> Vec<Dispatch> {
        let (x, act, target) = (work.x.all(), work.act.all(), pass.target);
        let codes = pass.codes(work, Product::can_code(&self.up, self.activation, target));
        let up = Product { y_codes: codes, ..work.product_of(input, &self.up, act, self.activation) };
        let down = Product {
            x_codes: codes.map(|c| c.codes),
            y_codes: pass.codes_of_x(work, next),
            ..work.product(act, None, &self.down, x, Epilogue::Add)
        };
        let mut all = up.dispatches(&format!("{label}.{}", self.up_label), pass.width, target);
        all.extend(down.dispatches(&format!("{label}.down"), pass.width, target));
        all
    }

    /// Whether what it adds to the residual stream can be left coded.
    pub fn can_code(&self, target: Target) -> bool {
        Product::can_code(&self.down, Epilogue::Add, target)
    }
}
