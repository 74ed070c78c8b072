//! The model as flat lists of dispatches. The mixers (`attention`, `mla`, `mamba1`, `mamba2`) and `mlp` read like the papers: one line a dispatch,
//! with the checkpoint's names; [`Plan`] puts the layers together, [`Model`] loads the weights and runs steps. Nothing here names
//! the GPU API; buffers are described first, so that a plan can be counted and sized without any weight loaded.

mod attention;
mod discrete_mamba2;
mod mamba1;
mod mamba2;
mod mixer;
mod mla;
mod mlp;
mod norm;
mod plan;
mod runner;
mod speed;
mod state;
mod tensors;
mod work;

pub use mixer::CacheTensor;
pub use plan::{DispatchCount, Mark, Plan, PlanOptions};
pub use runner::{MOST_STEPS, Model, Row, Step, Taps, Ticket, Token};
pub use speed::AdapterSpeed;
pub use state::{Carried, Kept, State};
pub use tensors::{Load, Tensors};
pub use work::{Rows, Work};

use crate::gpu::Buffer;
use crate::kernels::Target;
pub use crate::kernels::Twins;
use crate::kernels::coded::Coding;
pub use crate::kernels::mla_latent::CacheFormat;
use crate::kernels::product::Width;
pub use crate::kernels::sample as sampling;
pub use crate::kernels::sample::{SampleSettings, Sampled};

/// Which of a plan's lists is being made, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    pub width: Width,
    pub target: Target,
    /// What makes rows leaves them coded for the product that comes next (see [`crate::kernels::coded`]).
    pub coded: bool,
}

impl Pass {
    /// Where what adds to the residual stream leaves it, `next` being the gain of the next norm, if it has one.
    fn codes_of_x<'a>(self, work: &'a Work, next: Option<&'a Buffer>) -> Option<Coding<'a>> {
        next.filter(|_| self.coded).map(|gain| Coding { codes: &work.x_codes, gain: Some(gain) })
    }

    /// Where a kernel that can do so leaves what out_proj or down_proj reads.
    fn codes(self, work: &Work, can_code: bool) -> Option<Coding<'_>> {
        (self.coded && can_code).then_some(Coding { codes: &work.codes, gain: None })
    }

    /// Whether a step has so many rows that they fill a GPU.
    fn is_wide(self) -> bool {
        self.width.is_tiled()
    }

    /// Whether rows of a slot stand together in some number, so that recurrent layers take them by chunks.
    fn is_chunked(self) -> bool {
        self.width == Width::Wide && !self.target.twins.plain
    }
}
