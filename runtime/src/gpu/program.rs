//! A compiled list of dispatches: pipelines, bind groups and parameters made once; running it allocates nothing.

use std::ops::Range;

use super::timestamps::Timestamps;
use super::{Access, Amount, Cost, Dispatch, Gpu, Grid, Kernel, StepShape, StepSize};
use crate::{Error, Result};

/// A plan made ready to run.
pub struct Program {
    items: Vec<Item>,
    workgroup_limit: u32,
}

struct Item {
    label: String,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    grid: Grid,
    cost: Cost,
}

/// GPU time of one dispatch.
#[derive(Debug, Clone)]
pub struct DispatchTime {
    /// The dispatch's label.
    pub label: String,
    /// Nanoseconds between its begin and end.
    pub nanoseconds: f64,
    /// What it moved and computed in that time, at the least.
    pub work: Amount,
}

/// Pipelines made so far: one for each distinct kernel with its bindings.
#[derive(Default)]
pub(super) struct Pipelines(Vec<Made>);

struct Made {
    kernel: Kernel,
    bindings: Vec<(u32, Access)>,
    pipeline: wgpu::ComputePipeline,
}

impl Pipelines {
    fn find(&self, kernel: &Kernel, bindings: &[(u32, Access)]) -> Option<wgpu::ComputePipeline> {
        let made = self.0.iter().find(|m| m.kernel == *kernel && m.bindings == bindings)?;
        Some(made.pipeline.clone())
    }
}

impl Gpu {
    /// Turns dispatches, whose buffers have been allocated, into something that runs.
    ///
    /// # Errors
    /// [`Error::Limit`] for a binding over the adapter's limit; [`Error::Gpu`] for a shader that does not compile.
    pub async fn compile(&self, dispatches: &[Dispatch]) -> Result<Program> {
        let limits = self.limits();
        let align = limits.uniform_alignment.max(16);
        let mut arena = Vec::new();
        let offsets: Vec<u64> = dispatches
            .iter()
            .map(|d| {
                let offset = arena.len() as u64;
                arena.extend_from_slice(&d.params);
                arena.resize((arena.len() as u64).next_multiple_of(align).max(offset + align) as usize, 0);
                offset
            })
            .collect();
        let params = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: arena.len().max(16) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.queue().write_buffer(&params, 0, &arena);

        let mut items = Vec::with_capacity(dispatches.len());
        for (dispatch, offset) in dispatches.iter().zip(offsets) {
            for binding in &dispatch.bindings {
                if binding.buffer.size() > limits.binding {
                    return Err(Error::Limit {
                        what: binding.buffer.label().into(),
                        limit: "largest binding".into(),
                        need: binding.buffer.size(),
                        have: limits.binding,
                        advice: "a shorter context or fewer slots may fit".into(),
                    });
                }
            }
            let pipeline = self.pipeline(dispatch).await?;
            let mut entries = vec![wgpu::BindGroupEntry {
                binding: 1,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &params,
                    offset,
                    size: std::num::NonZeroU64::new((dispatch.params.len() as u64).next_multiple_of(16).max(16)),
                }),
            }];
            entries.extend(
                dispatch
                    .bindings
                    .iter()
                    .map(|b| wgpu::BindGroupEntry { binding: b.number, resource: b.buffer.raw().as_entire_binding() }),
            );
            let bind_group = self.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&dispatch.label),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            let label = dispatch.label.clone();
            items.push(Item { label, pipeline, bind_group, grid: dispatch.grid, cost: dispatch.cost });
        }
        self.fault()?;
        Ok(Program { items, workgroup_limit: limits.workgroups })
    }

    /// The pipeline of a dispatch, which others with the same kernel and bindings share.
    async fn pipeline(&self, dispatch: &Dispatch) -> Result<wgpu::ComputePipeline> {
        let kernel = &dispatch.kernel;
        let bindings: Vec<(u32, Access)> = dispatch.bindings.iter().map(|b| (b.number, b.access)).collect();
        if let Some(made) = self.pipelines().borrow().find(kernel, &bindings) {
            return Ok(made);
        }
        let device = self.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let source = kernel.text(cfg!(target_arch = "wasm32"));
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(kernel.name), source: wgpu::ShaderSource::Wgsl(source.into()) };
        // SAFETY: the checks that are switched off guard indices and loops of our own shaders, whose bounds come from
        // parameters that the kernels' bindings assert; the kernel tables run each with guard cells around its outputs.
        // Storage buffers keep the driver's own robustness.
        let module = unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
        let mut entries = vec![layout_entry(1, wgpu::BufferBindingType::Uniform)];
        entries.extend(bindings.iter().map(|(number, access)| {
            layout_entry(*number, wgpu::BufferBindingType::Storage { read_only: *access == Access::Read })
        }));
        let layout = device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel.name), entries: &entries });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &kernel.constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: self.pipeline_cache().get(),
        });
        if let Some(e) = scope.pop().await {
            return Err(Error::Gpu { what: format!("shader {}", kernel.name), reason: e.to_string() });
        }
        let made = Made { kernel: kernel.clone(), bindings, pipeline: pipeline.clone() };
        self.pipelines().borrow_mut().0.push(made);
        Ok(pipeline)
    }
}

fn layout_entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

impl Program {
    /// Number of dispatches.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Encodes a part of the list, in order, into a compute pass.
    pub(super) fn encode_range(&self, pass: &mut wgpu::ComputePass<'_>, shape: StepShape, range: Range<usize>) {
        for item in &self.items[range] {
            item.encode(pass, shape, self.workgroup_limit);
        }
    }

    /// Runs the list once and waits for it: for tests and single shots.
    pub async fn run(&self, gpu: &Gpu, shape: StepShape) -> Result<()> {
        self.run_range(gpu, shape, 0..self.len()).await
    }

    /// Runs a part of the list and waits for it.
    pub async fn run_range(&self, gpu: &Gpu, shape: StepShape, range: Range<usize>) -> Result<()> {
        let mut encoder = gpu.encoder("run");
        self.encode_range(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), shape, range);
        gpu.submit(encoder);
        gpu.flush().await
    }

    /// Runs the list with each dispatch in a pass of its own between two timestamps.
    ///
    /// # Errors
    /// [`Error::Limit`] when the device has no timestamps.
    pub async fn profile(&self, gpu: &Gpu, size: StepSize) -> Result<Vec<DispatchTime>> {
        let timestamps = Timestamps::new(gpu, self.items.len())?;
        let mut encoder = gpu.encoder("profile");
        for (i, item) in self.items.iter().enumerate() {
            item.encode(&mut timestamps.pass(&mut encoder, i, &item.label), size.shape, self.workgroup_limit);
        }
        let times = timestamps.submit(gpu, encoder).await?;
        let timed = |(item, nanoseconds): (&Item, f64)| DispatchTime {
            label: item.label.clone(),
            nanoseconds,
            work: item.cost.of(item.grid, size),
        };
        Ok(self.items.iter().zip(times).map(timed).collect())
    }
}

impl Item {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>, shape: StepShape, limit: u32) {
        let [x, y, z] = self.grid.workgroups(shape, limit);
        if x * y * z > 0 {
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.bind_group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
    }
}
