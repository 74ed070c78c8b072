//! The norm before a mixer, an MLP or the head. An RMS norm costs no dispatch: it is a factor of the sums of the product
//! that comes after it. A layer norm has one of its own, and that product sees rows that are normed already.

use super::work::Work;
use super::{Pass, Tensors};
use crate::config::{NormConfig, NormKind};
use crate::gpu::{Buffer, Dispatch};
use crate::kernels::layernorm::LayerNorm;
use crate::kernels::product::Norm;
use crate::kernels::rmsnorm::Columns;

/// A norm's weights on the GPU.
#[derive(Debug)]
pub struct BlockNorm {
    weight: Buffer,
    /// A layer norm's.
    bias: Option<Buffer>,
    eps: f32,
    hidden: usize,
}

/// What comes after a norm reads this.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The residual stream, or its norm.
    pub x: Columns<'a>,
    /// That x is still to go through.
    pub norm: Option<Norm<'a>>,
    /// x as products of few rows on int8 dot products take it, times the norm's weight if it has one.
    pub codes: Option<&'a Buffer>,
}

impl BlockNorm {
    pub fn new(config: &NormConfig, hidden: usize, tensors: &mut Tensors) -> Self {
        let weight = tensors.vector(&config.weight, &[hidden]);
        let bias = match &config.kind {
            NormKind::Rms => None,
            NormKind::Layer { bias } => Some(tensors.vector(bias, &[hidden])),
        };
        Self { weight, bias, eps: config.eps, hidden }
    }

    /// What the residual stream is multiplied by where it is left coded for this norm; a layer norm takes it as it is.
    pub fn gain(&self) -> Option<&Buffer> {
        self.bias.is_none().then_some(&self.weight)
    }

    /// What the next product reads, and the dispatch that makes it, if there is one.
    pub fn input<'a>(&'a self, label: &str, work: &'a Work, pass: Pass) -> (Input<'a>, Option<Dispatch>) {
        let codes = pass.coded.then_some(&work.x_codes);
        let (weight, eps, x) = (&self.weight, self.eps, work.x.all());
        let Some(bias) = &self.bias else {
            return (Input { x, norm: Some(Norm { weight, eps }), codes }, None);
        };
        let codes = codes.filter(|_| LayerNorm::can_code(pass.target));
        let y = work.n.strided(self.hidden);
        let norm = LayerNorm { step: &work.step, x, weight, bias, y, codes, width: self.hidden, eps };
        (Input { x: y, norm: None, codes }, Some(norm.dispatch(label, pass.target)))
    }
}
