use super::*;

#[test]
fn other_models_are_named() {
    let only = |files: &[(&str, &str)]| {
        Folder(files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).collect()).refusal()
    };
    let llama = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}"#;
    let mistral = r#"{"architectures": ["MistralForCausalLM"], "model_type": "mistral"}"#;
    let supported = "supported: safetensors checkpoints of Zebra-Llama";
    assert_says(&only(&[]), &["no config.json", supported]);
    assert_says(&only(&[("model.Q4_0.gguf", "")]), &["model.Q4_0.gguf is a GGUF", supported]);
    assert_says(&only(&[("config.json", mistral)]), &["MistralForCausalLM", "\"mistral\"", supported]);
    assert_says(
        &only(&[("config.json", llama), ("MLA_config.json", "{}"), ("hybrid_config.json", "{}")]),
        &["different families", "hybrid_config.json, MLA_config.json"],
    );
    assert_says(
        &only(&[("config.json", llama), ("mamba_config.json", "{}"), ("mla_layer_config.json", "{}")]),
        &["different families", "mla_layer_config.json, mamba_config.json"],
    );
    let llamba = r#"{"model_type": "llamba"}"#;
    assert_says(
        &only(&[("config.json", llamba), ("hybrid_config.json", "{}")]),
        &["different families", "model_type \"llamba\", hybrid_config.json"],
    );
    assert_says(
        &only(&[("config.json", llama), ("mla_layer_config.json", "{}")]),
        &["mla_layer_config.json is there without MLA_config.json"],
    );
    assert_says(&only(&[("config.json", "{}")]), &["without model_type"]);
    assert_says(&only(&[("config.json", "{")]), &["not a JSON object"]);

    let mut folder = Folder::tiny();
    folder.remove("model.safetensors");
    folder.0.retain(|(name, _)| !name.ends_with(".safetensors"));
    assert_says(&folder.refusal(), &["neither model.safetensors nor model.safetensors.index.json"]);
    folder.0.push(("pytorch_model.bin".into(), Vec::new()));
    assert_says(&folder.refusal(), &["pytorch_model.bin", "not supported"]);

    let mut folder = Folder::tiny();
    folder.tensors(|list| {
        for (name, ..) in list {
            *name = name.replace("layers.1.mamba.", "layers.1.gdn.");
        }
    });
    assert_says(
        &folder.refusal(),
        &["model.layers.1.mamba.conv1d.weight is missing", "another kind, model.layers.1.gdn"],
    );
}

#[test]
fn other_families_are_told_by_their_files() {
    let family = |name: &str| Folder::fixture(name).config();
    for (name, expected, mixers) in [
        ("tiny-gqa", Family::ZebraLlama, "mla mamba2 mamba2 mla mamba2"),
        ("tiny-xecomla-dynamic", Family::XEcoMla, "mla mla mla"),
        ("tiny-mambainllama", Family::MambaInLlama, "mamba2 attention mamba2 attention"),
        ("tiny-llama", Family::Llama, "attention attention attention"),
    ] {
        let config = family(name);
        let found: Vec<&str> = config.layers.iter().map(|layer| layer.mixer.name()).collect();
        assert_eq!((config.family, &*found.join(" ")), (expected, mixers), "{name}");
    }
    let dynamic = family("tiny-xecomla-dynamic");
    let ranks = |layer: usize| match &dynamic.layers[layer].mixer.kind {
        MixerKind::Mla(c) => (c.q_lora_rank, c.kv_lora_rank),
        _ => panic!("MLA"),
    };
    assert_eq!([ranks(0), ranks(1), ranks(2)], [(Some(32), 24), (Some(16), 8), (Some(24), 16)]);
    let llama = family("tiny-llama");
    assert_eq!((llama.cache_elements(), llama.base_cache_elements()), (192, 192));
}
