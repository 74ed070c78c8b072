//! Compiled pipelines as bytes that the next device of the same adapter begins with, where the backend has such a thing
//! (Vulkan, not browsers). Where the bytes are between two runs is not known here.

use std::hash::{DefaultHasher, Hasher};

use super::Gpu;

/// Bytes of the seal before a cache's own: its driver trusts what it is given, and wgpu checks no more than the header.
const SEAL: usize = size_of::<u64>();

impl Gpu {
    /// A name for the bytes of [`Gpu::compiled_pipelines`], the same for every device that may begin with them; `None`
    /// where the backend does not give any.
    pub fn pipeline_cache_name(&self) -> Option<&str> {
        self.cache_name()
    }

    /// Has pipelines that are compiled from now on kept for [`Gpu::compiled_pipelines`], and begins with those in `bytes`,
    /// which it returned to an earlier run. Damaged bytes, and those of another adapter or driver, are as good as none.
    pub async fn keep_pipelines(&self, bytes: Option<&[u8]>) {
        if self.pipeline_cache_name().is_none() || self.pipeline_cache().get().is_some() {
            return;
        }
        let create = |data| {
            let descriptor = wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data, fallback: true };
            // SAFETY: the seal says that these are the bytes of `get_data`; whether they are this adapter's and its
            // driver's, wgpu reads in their header.
            unsafe { self.device().create_pipeline_cache(&descriptor) }
        };
        let scope = self.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let mut cache = create(bytes.and_then(opened));
        if scope.pop().await.is_some() {
            cache = create(None);
        }
        // Nobody has set it since it was looked at.
        let _ = self.pipeline_cache().set(cache);
    }

    /// The pipelines compiled so far, since [`Gpu::keep_pipelines`], with those it began with.
    pub fn compiled_pipelines(&self) -> Option<Vec<u8>> {
        self.pipeline_cache().get()?.get_data().map(|data| sealed(&data))
    }
}

fn seal(data: &[u8]) -> [u8; SEAL] {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish().to_le_bytes()
}

fn sealed(data: &[u8]) -> Vec<u8> {
    [&seal(data), data].concat()
}

/// What is sealed, unless it was damaged.
fn opened(bytes: &[u8]) -> Option<&[u8]> {
    let (found, data) = bytes.split_first_chunk::<SEAL>()?;
    (*found == seal(data)).then_some(data)
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;

    #[test]
    fn what_another_adapter_or_driver_left_is_as_good_as_nothing() {
        let begun_with = |bytes: Option<&[u8]>| {
            let gpu = block_on(Gpu::open(None)).expect("an adapter");
            assert_eq!(gpu.compiled_pipelines(), None);
            block_on(gpu.keep_pipelines(bytes));
            gpu.fault().expect("no fault");
            gpu.compiled_pipelines().expect("a Vulkan adapter")
        };
        let own = begun_with(None);
        assert_eq!(begun_with(Some(&own)), own);
        // All that wgpu looks at: what form it has, of which backend, adapter and driver, and how long it is.
        for at in 0..56 {
            let mut foreign = opened(&own).expect("whole").to_vec();
            foreign[at] ^= 1;
            assert_eq!(begun_with(Some(&sealed(&foreign))), own, "byte {at}");
        }
    }

    #[test]
    fn damage_breaks_the_seal() {
        let bytes = sealed(b"pipelines");
        assert_eq!(opened(&bytes), Some(b"pipelines".as_slice()));
        assert_eq!(opened(&bytes[..bytes.len() - 1]), None);
        assert_eq!(opened(&bytes[..SEAL - 1]), None);
        assert_eq!(opened(&[]), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(opened(&damaged), None, "byte {at}");
        }
    }
}
