//! The GPU as this crate sees it: a device, sized buffers and flat lists of dispatches. This module knows wgpu and no
//! model; the modules above it name [`Buffer`]s and [`Dispatch`]es and know no wgpu.
//!
//! Everything is described first and made second: a [`Buffer`] is a size with a purpose until [`Gpu::allocate`] makes
//! it, a [`Dispatch`] is plain data until [`Gpu::compile`] turns a list of them into a [`Program`]. So a plan can be
//! counted and sized with no memory touched.

mod buffer;
mod device;
mod dispatch;
mod pipeline_cache;
mod program;
mod readback;
mod timestamps;

pub use buffer::{Buffer, Purpose};
pub use device::{AdapterDescription, Cooperative, Gpu, Held, Limits};
pub use dispatch::{Access, Amount, Binding, Cost, Dispatch, Extent, Grid, Kernel, StepShape, StepSize};
pub use program::{DispatchTime, Program};
pub use readback::{Pending, Ring, Run};
