//! Opening a GPU, allocating, uploading, reading back, and turning its faults into [`Error`]s.

use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::program::Pipelines;
use super::{Buffer, Purpose};
use crate::{Error, Result};

/// The limits of a device that a plan has to respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes one binding may cover.
    pub binding: u64,
    /// Bytes one buffer may have.
    pub buffer: u64,
    /// Workgroups along one dimension of a dispatch.
    pub workgroups: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Invocations of a workgroup, all along x.
    pub invocations: u32,
    /// Storage buffers one shader may bind.
    pub storage_buffers: u32,
    /// Alignment of an offset into a uniform buffer.
    pub uniform_alignment: u64,
    /// Lanes of a subgroup, at least.
    pub subgroup: u32,
}

/// Lanes of a subgroup, at least, whatever the adapter: WebGPU promises them.
const LEAST_SUBGROUP: u32 = 4;
/// More of them are not made use of.
const MOST_SUBGROUP: u32 = 64;

impl Limits {
    /// What WebGPU promises everywhere.
    pub const LEAST: Limits = Limits {
        binding: 128 << 20,
        buffer: 256 << 20,
        workgroups: 65_535,
        workgroup_memory: 16 << 10,
        invocations: 256,
        storage_buffers: 8,
        uniform_alignment: 256,
        subgroup: LEAST_SUBGROUP,
    };

    fn new(l: &wgpu::Limits, info: &wgpu::AdapterInfo) -> Self {
        Self {
            subgroup: info.subgroup_min_size.clamp(LEAST_SUBGROUP, MOST_SUBGROUP),
            binding: l.max_storage_buffer_binding_size,
            buffer: l.max_buffer_size,
            workgroups: l.max_compute_workgroups_per_dimension,
            workgroup_memory: l.max_compute_workgroup_storage_size,
            invocations: l.max_compute_invocations_per_workgroup.min(l.max_compute_workgroup_size_x),
            storage_buffers: l.max_storage_buffers_per_shader_stage,
            uniform_alignment: u64::from(l.min_uniform_buffer_offset_alignment),
        }
    }
}

/// One adapter of this machine.
#[derive(Debug, Clone)]
pub struct AdapterDescription {
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    pub backend: String,
    /// Driver name and version as the driver tells them.
    pub driver: String,
    pub limits: Limits,
}

impl AdapterDescription {
    fn new(adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        let limits = Limits::new(&adapter.limits(), &info);
        Self {
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete",
                wgpu::DeviceType::IntegratedGpu => "integrated",
                wgpu::DeviceType::VirtualGpu => "virtual",
                wgpu::DeviceType::Cpu => "software",
                wgpu::DeviceType::Other => "other",
            },
            name: info.name,
            backend: format!("{:?}", info.backend).to_lowercase(),
            driver: [info.driver, info.driver_info].join(" ").trim().to_owned(),
            limits,
        }
    }

    /// Whether a CPU does the work.
    pub fn is_software(&self) -> bool {
        self.kind == "software"
    }
}

/// Cooperative matrices of `side` x `side`, factors of f16 and sums of f32, that subgroups of `lanes` lanes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooperative {
    /// 16, or 8 (Mesa's software driver).
    pub side: u32,
    pub lanes: u32,
}

impl Cooperative {
    /// Elements of a matrix that one lane holds in `matmul_coop.wgsl`.
    const PER_LANE: u32 = 8;

    /// What an adapter offers of what our shaders can use. Some name the feature and offer other sizes or types, and
    /// the lanes of a subgroup must be known before the shader is written.
    fn offered(adapter: &wgpu::Adapter, features: wgpu::Features) -> Option<Self> {
        let needed =
            wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
        let info = adapter.get_info();
        if cfg!(target_arch = "wasm32")
            || !features.contains(needed)
            || info.subgroup_min_size != info.subgroup_max_size
        {
            return None;
        }
        let sizes = adapter.cooperative_matrix_properties();
        let has = |side: u32| {
            side * side == Self::PER_LANE * info.subgroup_max_size
                && sizes.iter().any(|p| {
                    [p.m_size, p.n_size, p.k_size] == [side; 3]
                        && p.ab_type == wgpu::CooperativeScalarType::F16
                        && p.cr_type == wgpu::CooperativeScalarType::F32
                })
        };
        [16, 8].into_iter().find(|side| has(*side)).map(|side| Self { side, lanes: info.subgroup_max_size })
    }
}

/// Bytes that the backend's allocator holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Of everything that was made on the device: planned buffers, and what goes with them (parameters, readback).
    pub used: u64,
    /// Of the blocks of memory which that lies in.
    pub reserved: u64,
}

/// What the device reported outside of any call: kept until the next call asks.
type Fault = Arc<Mutex<Option<Error>>>;

/// An open device with its queue. Clones are the same device.
#[derive(Clone)]
pub struct Gpu(Rc<Inner>);

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    description: AdapterDescription,
    features: wgpu::Features,
    subgroups: Cell<bool>,
    /// See [`Gpu::bind_at_most`].
    most_binding: Cell<u64>,
    cooperative: Option<Cooperative>,
    fault: Fault,
    allocated: RefCell<BTreeMap<Purpose, u64>>,
    /// Made so far, for every program of this device.
    pipelines: RefCell<Pipelines>,
    /// What they leave for the next run, and its name.
    pipeline_cache: OnceCell<wgpu::PipelineCache>,
    cache_name: Option<String>,
}

/// Bytes of a block of GPU memory that buffers share; larger buffers have their own, and blocks of host memory have half.
/// wgpu's own choice grows to 256 MiB, of which the last stands half empty.
const BLOCK: u64 = 64 << 20;

const HOW_TO_GET_ONE: &str = if cfg!(target_arch = "wasm32") {
    "Use a browser with WebGPU (a current Chrome, Edge, Safari or Firefox) and leave its hardware acceleration on"
} else {
    "Install a Vulkan driver of your GPU's maker; a machine without a GPU can use Mesa's software driver (Debian and \
     Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1)"
};

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor)
}

/// The adapters in the order of preference: discrete, integrated, virtual, other, software. A browser lists none: there
/// it is the one that it answers with.
async fn adapters() -> Vec<wgpu::Adapter> {
    if cfg!(target_arch = "wasm32") {
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        return instance().request_adapter(&options).await.into_iter().collect();
    }
    let mut found = instance().enumerate_adapters(wgpu::Backends::PRIMARY).await;
    found.sort_by_key(|a| match a.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    found
}

impl Gpu {
    /// Every adapter this machine offers, the preferred one first.
    pub async fn adapters() -> Vec<AdapterDescription> {
        adapters().await.iter().map(AdapterDescription::new).collect()
    }

    /// Opens the preferred adapter, or the one whose index or part of whose name is given.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when there is none, or none of that name.
    pub async fn open(wanted: Option<&str>) -> Result<Gpu> {
        let found = adapters().await;
        let names: Vec<String> = found.iter().map(|a| a.get_info().name).collect();
        let index = match wanted {
            None => 0,
            Some(w) => match w.parse::<usize>() {
                Ok(index) => index,
                Err(_) => {
                    let w = w.to_lowercase();
                    names.iter().position(|n| n.to_lowercase().contains(&w)).unwrap_or(usize::MAX)
                }
            },
        };
        let adapter = found.get(index).ok_or_else(|| match wanted {
            Some(w) if !names.is_empty() => Error::NoAdapter {
                found: format!("\"{w}\" was asked for, found {}", list(&names)),
                advice: "Give an adapter's index or a part of its name".into(),
            },
            _ => Error::NoAdapter { found: "none was found".into(), advice: HOW_TO_GET_ONE.into() },
        })?;

        let offered = adapter.features();
        let mut features = offered
            & (wgpu::Features::SUBGROUP
                | wgpu::Features::SHADER_F16
                | wgpu::Features::TIMESTAMP_QUERY
                | wgpu::Features::PIPELINE_CACHE);
        let cache_name = Some(adapter.get_info()).filter(|_| features.contains(wgpu::Features::PIPELINE_CACHE));
        let cache_name = cache_name.and_then(|info| wgpu::util::pipeline_cache_key(&info));
        let cooperative = Cooperative::offered(adapter, offered);
        let mut experimental = wgpu::ExperimentalFeatures::disabled();
        if cooperative.is_some() {
            features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            // SAFETY: what wgpu does not check yet is how shaders use cooperative matrices. One of ours does, with
            // bounds that its binding asserts, and it is run on the adapter against the plain kernel before it is used.
            experimental = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("zebra"),
                required_features: features,
                required_limits: adapter.limits(),
                experimental_features: experimental,
                memory_hints: wgpu::MemoryHints::Manual { suballocated_device_memory_block_size: BLOCK..BLOCK },
                ..Default::default()
            })
            .await
            .map_err(|e| Error::NoAdapter {
                found: format!("\"{}\" refused to open: {e}", names[index]),
                advice: "Update its driver or choose another adapter".into(),
            })?;

        let fault: Fault = Arc::default();
        let keep = fault.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            let error = match e {
                wgpu::Error::OutOfMemory { .. } => {
                    Error::OutOfMemory { what: "the GPU".into(), need: 0, advice: SMALLER.into() }
                }
                other => Error::Gpu { what: "the device".into(), reason: other.to_string() },
            };
            lock(&keep).get_or_insert(error);
        }));
        let keep = fault.clone();
        device.set_device_lost_callback(move |_, message| *lock(&keep) = Some(Error::DeviceLost(message)));
        Ok(Gpu(Rc::new(Inner {
            description: AdapterDescription::new(adapter),
            device,
            queue,
            features,
            subgroups: Cell::new(features.contains(wgpu::Features::SUBGROUP)),
            most_binding: Cell::new(u64::MAX),
            cooperative,
            fault,
            allocated: RefCell::default(),
            pipelines: RefCell::default(),
            pipeline_cache: OnceCell::new(),
            cache_name,
        })))
    }

    /// The adapter in use.
    pub fn description(&self) -> &AdapterDescription {
        &self.0.description
    }

    /// The limits of the device.
    pub fn limits(&self) -> Limits {
        let offered = self.0.description.limits;
        Limits { binding: offered.binding.min(self.0.most_binding.get()), ..offered }
    }

    /// Says that a binding may cover at most so many bytes, whatever the adapter offers: to see on a large one what a
    /// small one does.
    pub fn bind_at_most(&self, bytes: u64) {
        self.0.most_binding.set(bytes);
    }

    /// Whether shaders may use subgroup operations.
    pub fn has_subgroups(&self) -> bool {
        self.0.subgroups.get()
    }

    /// Says that the device was opened with subgroups although wgpu does not know: it has no name for the feature in
    /// browsers, whose pages can add it to the request.
    pub fn assume_subgroups(&self) {
        self.0.subgroups.set(true);
    }

    /// The cooperative matrices that shaders may use.
    pub fn cooperative(&self) -> Option<Cooperative> {
        self.0.cooperative
    }

    /// Whether products should run on cooperative matrices: those of 16 x 16 are matrix units, the smaller ones a
    /// software driver's.
    pub fn has_cooperative_matrices(&self) -> bool {
        self.cooperative().is_some_and(|c| c.side == 16)
    }

    /// Destroys the device, as a driver that resets does: everything under way and later fails with
    /// [`Error::DeviceLost`].
    pub fn destroy(&self) {
        self.0.device.destroy();
    }

    /// Whether passes can be timed on the GPU.
    pub fn has_timestamps(&self) -> bool {
        self.0.features.contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Bytes allocated through this device, by purpose.
    pub fn allocated(&self) -> BTreeMap<Purpose, u64> {
        self.0.allocated.borrow().clone()
    }

    /// What the backend's allocator holds, where it tells (Vulkan, DX12).
    pub fn held(&self) -> Option<Held> {
        let report = self.0.device.generate_allocator_report()?;
        Some(Held { used: report.total_allocated_bytes, reserved: report.total_reserved_bytes })
    }

    /// Makes the GPU's buffer of each, zero-filled; those that exist already are left as they are. The largest come first,
    /// so that the small ones fill what they leave of a block.
    ///
    /// # Errors
    /// [`Error::Limit`] for a buffer over the adapter's limit, [`Error::OutOfMemory`] when the device refuses.
    pub async fn allocate(&self, buffers: &[Buffer]) -> Result<()> {
        let limit = self.limits().buffer;
        let mut sorted: Vec<&Buffer> = buffers.iter().collect();
        sorted.sort_by_key(|b| Reverse(b.size()));
        for buffer in sorted.into_iter().filter(|b| !b.is_allocated()) {
            if buffer.size() > limit {
                return Err(Error::Limit {
                    what: buffer.label().into(),
                    limit: "largest buffer".into(),
                    need: buffer.size(),
                    have: limit,
                    advice: SMALLER.into(),
                });
            }
            let scope = self.0.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let raw = self.0.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(buffer.label()),
                size: buffer.size(),
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            if scope.pop().await.is_some() {
                return Err(Error::OutOfMemory {
                    what: buffer.label().into(),
                    need: buffer.size(),
                    advice: format!("{} bytes are in use; {SMALLER}", self.0.allocated.borrow().values().sum::<u64>()),
                });
            }
            buffer.set_raw(raw);
            *self.0.allocated.borrow_mut().entry(buffer.purpose()).or_default() += buffer.size();
        }
        self.fault()
    }

    /// Gives the memory of buffers back, once what was submitted with them is done: a browser would wait for its garbage
    /// collector, which does not feel the weight of GPU memory. They are not used again.
    pub fn release(&self, buffers: &[Buffer]) {
        let mut allocated = self.0.allocated.borrow_mut();
        for buffer in buffers.iter().filter(|b| b.is_allocated()) {
            buffer.raw().destroy();
            if let Some(bytes) = allocated.get_mut(&buffer.purpose()) {
                *bytes = bytes.saturating_sub(buffer.size());
            }
        }
    }

    /// Queues a write of `bytes` (a multiple of 4) at `offset`. It happens before the next submit.
    pub fn write(&self, buffer: &Buffer, offset: u64, bytes: &[u8]) {
        self.0.queue.write_buffer(buffer.raw(), offset, bytes);
    }

    /// Sends queued writes and waits for the GPU, so that staging memory is given back.
    pub async fn flush(&self) -> Result<()> {
        let index = self.0.queue.submit([]);
        let (done, wait) = futures_channel::oneshot::channel();
        self.0.queue.on_submitted_work_done(move || {
            // The receiver is gone only when the waiting future was dropped: nobody is left to tell.
            let _ = done.send(());
        });
        self.poll_until(index)?;
        wait.await.map_err(|_| self.lost("while waiting for uploads"))?;
        self.fault()
    }

    /// Reads `range` of a buffer (offsets in bytes, multiples of 4).
    pub async fn read(&self, buffer: &Buffer, range: Range<u64>) -> Result<Vec<u8>> {
        let size = range.end - range.start;
        let staging = self.staging(size)?;
        let mut encoder = self.encoder("read");
        encoder.copy_buffer_to_buffer(buffer.raw(), range.start, &staging, 0, size);
        let index = self.submit(encoder);
        self.map(&staging, index).await
    }

    /// Copies between different buffers, each as (from, offset, to, offset, bytes), in order with all that was
    /// submitted before.
    pub fn copy(&self, copies: &[(&Buffer, u64, &Buffer, u64, u64)]) {
        let mut encoder = self.encoder("copy");
        for (from, from_offset, to, to_offset, size) in copies.iter().filter(|c| c.4 > 0) {
            encoder.copy_buffer_to_buffer(from.raw(), *from_offset, to.raw(), *to_offset, *size);
        }
        self.submit(encoder);
    }

    /// Zeroes a part of a buffer, in order with all that was submitted before.
    pub fn clear(&self, buffer: &Buffer, offset: u64, size: u64) {
        let mut encoder = self.encoder("clear");
        encoder.clear_buffer(buffer.raw(), offset, Some(size));
        self.submit(encoder);
    }

    /// A buffer that can be mapped for reading.
    pub(super) fn staging(&self, size: u64) -> Result<wgpu::Buffer> {
        let raw = self.0.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.fault()?;
        Ok(raw)
    }

    /// Waits for a submission, maps a staging buffer of it, and takes its bytes.
    pub(super) async fn map(&self, staging: &wgpu::Buffer, index: wgpu::SubmissionIndex) -> Result<Vec<u8>> {
        let (done, wait) = futures_channel::oneshot::channel();
        staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
            // The receiver is gone only when the waiting future was dropped: nobody is left to tell.
            let _ = done.send(result);
        });
        self.poll_until(index)?;
        let mapped = wait.await.map_err(|_| self.lost("while reading back"))?;
        self.fault()?;
        // A buffer of ours that no error was reported of fails to map only with its device.
        mapped.map_err(|e| self.lost(&e.to_string()))?;
        let view = staging
            .slice(..)
            .get_mapped_range()
            .map_err(|e| Error::Gpu { what: "readback".into(), reason: format!("{e:?}") })?;
        let bytes = view.to_vec();
        drop(view);
        staging.unmap();
        Ok(bytes)
    }

    /// Runs the device until a submission is done. A browser does this by itself: there it returns at once.
    fn poll_until(&self, index: wgpu::SubmissionIndex) -> Result<()> {
        self.0
            .device
            .poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None })
            .map(drop)
            .map_err(|e| self.lost(&e.to_string()))
    }

    /// The fault that explains why something failed that cannot fail otherwise; all later calls fail with it.
    fn lost(&self, when: &str) -> Error {
        lock(&self.0.fault).get_or_insert_with(|| Error::DeviceLost(when.into())).clone()
    }

    /// The error the device reported since the last call, if any.
    pub fn fault(&self) -> Result<()> {
        let mut fault = lock(&self.0.fault);
        match &*fault {
            None => Ok(()),
            Some(lost @ Error::DeviceLost(_)) => Err(lost.clone()),
            Some(_) => Err(fault.take().unwrap_or(Error::DeviceLost(String::new()))),
        }
    }

    pub(super) fn encoder(&self, label: &str) -> wgpu::CommandEncoder {
        self.0.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) })
    }

    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.0.queue.submit([encoder.finish()])
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    pub(super) fn pipelines(&self) -> &RefCell<Pipelines> {
        &self.0.pipelines
    }

    pub(super) fn pipeline_cache(&self) -> &OnceCell<wgpu::PipelineCache> {
        &self.0.pipeline_cache
    }

    pub(super) fn cache_name(&self) -> Option<&str> {
        self.0.cache_name.as_deref()
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }
}

const SMALLER: &str = "a smaller format (q4), a shorter context or another adapter may fit";

fn lock(fault: &Fault) -> std::sync::MutexGuard<'_, Option<Error>> {
    fault.lock().unwrap_or_else(PoisonError::into_inner)
}

fn list(names: &[String]) -> String {
    let lines: Vec<String> = names.iter().enumerate().map(|(i, n)| format!("{i}: {n}")).collect();
    lines.join(", ")
}
