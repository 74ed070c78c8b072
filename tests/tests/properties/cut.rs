//! A cache in several buffers is one in one.

use pollster::block_on;
use zebra_runtime::Error;
use zebra_runtime::engine::{CacheFormat, Engine, KernelChoice, LoadOptions};
use zebra_runtime::gpu::Buffer;
use zebra_runtime::model::Step;
use zebra_runtime::weights::Preset;

use super::families::batch_logits;
use super::{VOCAB, answer, differ, drawn, engine, gpu, ids, options, rows, tiny};

/// The layers' caches of many slots, in as many buffers as a small binding asks for.
#[test]
fn a_cache_cut_by_slots_is_the_same_cache() {
    const SLOTS: usize = 10;
    let auto = options(KernelChoice::Auto);
    let quantized = LoadOptions { preset: Some(Preset::Q8), cache: CacheFormat::Q8, ..auto.clone() };
    for (name, load, context, each) in [
        ("tiny-gqa", options(KernelChoice::Plain), 4096, 5),
        ("tiny-gqa", auto.clone(), 4096, 4),
        ("tiny-gqa", quantized.clone(), 4096, 4),
        ("tiny-llama", LoadOptions { cache: CacheFormat::F16, ..auto }, 2048, 4),
        ("tiny-mambainllama", quantized, 2048, 5),
    ] {
        let what = format!("{name} as {:?}, cache {:?}, {:?}", load.preset, load.cache, load.kernels);
        let load = LoadOptions { slots: SLOTS, context: Some(context), logit_rows: Some(64), ..load };
        let mut whole = engine(name, load.clone());
        let slot_bytes = |engine: &Engine| {
            let layers = engine.model().plan().state.layers.iter();
            layers.map(|l| if l.position_bytes() > 0 { l.kept.slot_bytes() } else { 0 }).max().expect("layers")
        };
        let slot = slot_bytes(&whole);
        let bound = |bytes| {
            let gpu = gpu();
            gpu.bind_at_most(bytes);
            block_on(Engine::load(&*tiny(name), gpu, &load, &mut |_| {}))
        };
        // Half a slot more makes no difference.
        let mut cut = bound(each as u64 * slot + slot / 2).expect("loads");

        let (plan, before) = (cut.model().plan(), whole.model().plan());
        let pieces = SLOTS.div_ceil(each);
        let caches: Vec<_> = plan.state.layers.iter().filter(|l| l.position_bytes() > 0).collect();
        for carried in &caches {
            assert_eq!(carried.pieces.len(), pieces, "{what}");
            assert!(carried.pieces.iter().all(|p| p.buffer.size() <= each as u64 * slot), "{what}: {carried:?}");
        }
        assert_eq!(plan.bytes(), before.bytes(), "{what}: no more memory");
        let (more, fewer) = (plan.dispatches_per_token(), before.dispatches_per_token());
        assert_eq!(fewer.forced_by_limits, 0, "{what}");
        // Appending and attention, for each piece after the first.
        assert_eq!(more.forced_by_limits, 2 * (pieces - 1) * caches.len(), "{what}");
        assert_eq!(more.total, fewer.total + more.forced_by_limits, "{what}");
        for dispatch in [&plan.single, &plan.narrow, &plan.batch, &plan.wide].iter().flat_map(|lists| &lists.body) {
            let of_piece = |b: &Buffer| caches.iter().any(|l| l.pieces.iter().any(|p| p.buffer.same(b)));
            if dispatch.bindings.iter().any(|b| of_piece(&b.buffer)) {
                let text = dispatch.kernel.text(false);
                assert!(text.contains("params.first_slot"), "{} does not ask which slots it has", dispatch.label);
            }
        }

        // Prompts, batches of all slots, single rows of each; then rows of a few slots of several pieces, in no order.
        let prompts: Vec<Vec<u32>> = (0..SLOTS).map(|i| ids(5 + 4 * i, i as u32)).collect();
        for together in [true, false] {
            let got = batch_logits(&mut cut, &prompts, together);
            // Too many numbers to print.
            assert!(got == batch_logits(&mut whole, &prompts, together), "{what}, together: {together}");
            assert!(differ(&got[0], &got[SLOTS - 1]) > 0.1, "the control: another slot's logits are not these");
        }
        for count in [1, 20] {
            let mut mixed = Vec::new();
            for slot in [9, 0, 4, 5] {
                mixed.extend(rows(slot, &ids(count, slot as u32), prompts[slot].len()));
            }
            mixed.truncate(64);
            let logits =
                |engine: &mut Engine| block_on(engine.model_mut().logits(&Step { rows: mixed.clone() }, VOCAB));
            let same = logits(&mut cut).expect("runs") == logits(&mut whole).expect("runs");
            assert!(same, "{what}: {count} rows each");
        }

        // What a slot of one piece had read goes on in slots of the others, and in its own after another prompt.
        let story = |engine: &mut Engine| {
            (0..SLOTS).for_each(|slot| engine.reset(slot));
            let first = answer(engine, 1, Some(&ids(40, 5)), &drawn(6)).ids;
            let here = block_on(engine.snapshot(1)).expect("a snapshot");
            let next = answer(engine, 1, None, &drawn(8)).ids;
            engine.restore(8, &here).expect("restores");
            block_on(engine.fork(8, 6)).expect("forks");
            answer(engine, 1, Some(&ids(60, 9)), &drawn(4));
            engine.restore(1, &here).expect("restores");
            for slot in [8, 6, 1] {
                assert_eq!(answer(engine, slot, None, &drawn(8)).ids, next, "{what}: slot {slot}");
            }
            engine.fill(7, &here, 200).expect("fills");
            let filled = block_on(engine.model_mut().logits(&Step { rows: rows(7, &[3], 200) }, VOCAB)).expect("runs");
            (first, next, filled)
        };
        assert_eq!(story(&mut cut), story(&mut whole), "{what}");

        let refused = bound(slot - 16).err();
        let Some(Error::Limit { what: found, need, have, advice, .. }) = refused else { panic!("{what}: {refused:?}") };
        assert!(
            found.starts_with("cache of layer ") && found.ends_with(&format!(" for {context} positions of one slot")),
            "{found}"
        );
        assert_eq!((need, have, advice), (slot, slot - 16, format!("a context of {} fits", context - 1)), "{what}");
        println!("{what}: {SLOTS} slots in {pieces} pieces are the same as in one");
    }
}
