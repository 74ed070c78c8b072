//! Whole models against PyTorch.

use std::path::Path;

use zebra_runtime::engine::probe::{ProbeOptions, Values, probe};
use zebra_runtime::files::MemoryFiles;
use zebra_runtime::gpu::Gpu;
use zebra_runtime::kernels::mla_latent::CacheFormat;
use zebra_runtime::weights::Preset;

fn folder(path: &Path) -> MemoryFiles {
    let files = std::fs::read_dir(path)
        .expect("fixture folder")
        .map(|e| e.expect("entry").path())
        .map(|p| (p.file_name().expect("name").to_string_lossy().into_owned(), std::fs::read(&p).expect("read").into()))
        .collect();
    MemoryFiles::new(path.display().to_string(), files)
}

#[test]
fn tiny() {
    for name in ["tiny-gqa", "tiny-mha", "tiny-lnorm"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        let bytes = std::fs::read(path.join("expected.safetensors")).expect("expected");
        let expected = safetensors::SafeTensors::deserialize(&bytes).expect("parse");
        let ids: Vec<u32> = expected.tensor("input_ids").expect("ids").data().chunks(8).map(|c| c[0] as u32).collect();
        let files = folder(&path);
        let gpu = pollster::block_on(Gpu::open(None)).expect("gpu");
        let options =
            ProbeOptions { preset: Preset::F32, cache: CacheFormat::F32, decode: 8, chunk: 512, plain: false };
        let got = pollster::block_on(probe(&files, gpu, &ids, &options)).expect("probe");
        for t in got {
            let e = expected.tensor(&t.name).expect("named");
            assert_eq!(e.shape(), t.shape, "{}", t.name);
            if let Values::F32(v) = &t.values {
                let e: Vec<f32> = bytemuck::pod_collect_to_vec(e.data());
                let mean = e.iter().sum::<f32>() / e.len() as f32;
                let sd = (e.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / e.len() as f32).sqrt();
                let worst = e.iter().zip(v).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                println!("{name} {} {:.2e} sd", t.name, worst / sd);
            } else {
                println!("{name} {} {:?} {:?}", t.name, t.values, e.data().chunks(8).map(|c| c[0]).collect::<Vec<_>>());
            }
        }
    }
}
