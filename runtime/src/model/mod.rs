//! The model as flat lists of dispatches. `mla`, `mamba2` and `mlp` read like the papers: one line a dispatch, with the
//! checkpoint's names; [`Plan`] puts the layers together, [`Model`] loads the weights and runs steps. Nothing here names
//! the GPU API; buffers are described first, so that a plan can be counted and sized without any weight loaded.

mod mamba2;
mod mla;
mod mlp;
mod plan;
mod runner;
mod speed;
mod state;
mod tensors;
mod work;

pub use plan::{DispatchCount, Mark, Plan, PlanOptions};
pub use runner::{Model, Row, Step, Taps, Ticket, Token};
pub use speed::AdapterSpeed;
pub use state::{Carried, State};
pub use tensors::{Load, Tensors};
pub use work::{Rows, Work};

use crate::kernels::Target;
pub use crate::kernels::mla_latent::CacheFormat;
use crate::kernels::product::Width;
pub use crate::kernels::sample as sampling;
pub use crate::kernels::sample::{SampleSettings, Sampled};

/// Which of a plan's lists is being made, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    pub width: Width,
    pub target: Target,
}

impl Pass {
    /// Whether a step has so many rows that they fill a GPU.
    fn is_wide(self) -> bool {
        self.width.is_tiled()
    }

    /// Whether rows of a slot stand together in some number, so that recurrent layers take them by chunks.
    fn is_chunked(self) -> bool {
        self.width == Width::Wide && !self.target.plain
    }
}
