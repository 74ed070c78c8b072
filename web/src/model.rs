//! A loaded model: answers, snapshots, and a lost device brought back without the caller's noticing.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use futures_util::lock::Mutex;
use js_sys::Uint32Array;
use serde::Serialize;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use zebra_runtime::engine::{Engine, Finished, GenerateOptions, KernelChoice, Snapshot};
use zebra_runtime::files::Files;
use zebra_runtime::gpu::Gpu;
use zebra_runtime::text::{Message, Tokenizer};
use zebra_runtime::{Error, Result};

use crate::error::to_js_error;
use crate::files::JsFiles;
use crate::loading::{ALL_RIGHT, GpuBytes, Phase, open_gpu, tell};
use crate::request::{
    Answer, ChatMessage, GenerateRequest, IsAborted, JsAnswer, JsGenerateRequest, JsGpuBytes, JsMessages, JsModelInfo,
    OnPiece, OnProgress, Piece, Prompt, TokenLogprob, from_js, to_js,
};

/// The engine has one slot here: sessions are histories, and snapshots bring their states back.
const SLOT: usize = 0;

/// How often a device may be lost within one answer.
const MOST_LOSSES: u32 = 3;

/// Answers whose ids are known, so that a chat that goes on starts with the very tokens it was generated from.
const REMEMBERED: usize = 256;

/// A model on the GPU.
#[wasm_bindgen]
pub struct Zebra {
    engine: Mutex<Engine>,
    files: JsFiles,
    gpu: RefCell<Gpu>,
    tokenizer: Tokenizer,
    info: Info,
    subgroups: bool,
    verdict: String,
    remembered: RefCell<VecDeque<(String, Vec<u32>)>>,
    snapshots: RefCell<BTreeMap<u32, Snapshot>>,
    next_snapshot: Cell<u32>,
}

/// The package's `ModelInfo`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    name: String,
    family: &'static str,
    parameters: f64,
    format: String,
    cache: &'static str,
    context: usize,
    vocab_size: usize,
    layers: Vec<&'static str>,
    chat: bool,
    adapter: Adapter,
    kernels: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    self_test: Option<String>,
    dispatches_per_token: usize,
    cache_bytes_per_token: f64,
    cache_percent_of_base: f64,
}

#[derive(Serialize)]
struct Adapter {
    name: String,
    driver: String,
    software: bool,
    subgroups: bool,
}

impl Zebra {
    pub fn new(engine: Engine, files: JsFiles, kernels: KernelChoice, subgroups: bool, verdict: String) -> Self {
        let info = Info::new(&engine, files.describe(), kernels, &verdict);
        Self {
            gpu: RefCell::new(engine.model().gpu().clone()),
            tokenizer: engine.tokenizer().clone(),
            engine: Mutex::new(engine),
            files,
            info,
            subgroups,
            verdict,
            remembered: RefCell::default(),
            snapshots: RefCell::default(),
            next_snapshot: Cell::new(0),
        }
    }

    fn error(&self, error: Error) -> JsValue {
        to_js_error(error, Some(&self.files))
    }

    /// The engine, when no answer is under way.
    fn idle(&self) -> Result<futures_util::lock::MutexGuard<'_, Engine>> {
        self.engine.try_lock().ok_or_else(|| Error::Prompt("an answer is under way".into()))
    }

    fn prompt(&self, engine: &Engine, prompt: &Prompt) -> Result<Vec<u32>> {
        match prompt {
            Prompt::Messages(messages) => engine.encode_chat(&self.with_ids(messages)),
            Prompt::Text(text) => engine.encode(text),
            Prompt::Ids(ids) => Ok(ids.clone()),
        }
    }

    /// Messages with the ids of the answers that were generated here.
    fn with_ids(&self, messages: &[ChatMessage]) -> Vec<Message> {
        let remembered = self.remembered.borrow();
        let message = |m: &ChatMessage| {
            let known = remembered.iter().rev().find(|(text, _)| m.role == "assistant" && *text == m.content);
            Message { ids: known.map(|(_, ids)| ids.clone()), ..Message::new(m.role.as_str(), m.content.as_str()) }
        };
        messages.iter().map(message).collect()
    }

    fn remember(&self, engine: &Engine, done: &Finished) {
        let mut remembered = self.remembered.borrow_mut();
        remembered.retain(|(text, _)| *text != done.text);
        remembered.push_back((done.text.clone(), done.content_ids(&engine.defaults().stop_ids)));
        if remembered.len() > REMEMBERED {
            remembered.pop_front();
        }
    }

    /// One attempt at an answer. What it tells is in `options.answered` when its device is lost.
    async fn attempt(
        &self,
        engine: &mut Engine,
        prompt: &[u32],
        options: &mut GenerateOptions,
        shown: &mut usize,
        on_piece: &OnPiece,
    ) -> Result<Finished> {
        let mut told = Vec::new();
        let result = async {
            let mut generation = engine.generate(SLOT, prompt, options).await?;
            while let Some(piece) = generation.next().await? {
                told.push(piece.id);
                *shown += piece.text.len();
                let token = TokenLogprob::new(&self.tokenizer, piece.id, piece.logprob);
                let top = piece.top.iter().map(|&(id, p)| TokenLogprob::new(&self.tokenizer, id, p)).collect();
                let piece = to_js(&Piece { token, text: piece.text, top });
                // What the listener throws is its own concern.
                let _ = on_piece.unchecked_ref::<js_sys::Function>().call1(&JsValue::NULL, &piece);
                if options.abort.as_ref().is_some_and(|asked| asked()) {
                    generation.stop();
                }
            }
            generation.finish().await
        };
        let result = result.await;
        options.answered.extend(told);
        result
    }

    /// Brings the model back on a new device.
    async fn revive(&self, engine: &mut Engine) -> Result<()> {
        let gpu = open_gpu(self.subgroups).await?;
        *self.gpu.borrow_mut() = gpu.clone();
        // What was on the lost device is gone for them, too: they are read again when they are wanted.
        self.snapshots.borrow_mut().clear();
        engine.revive(&self.files, gpu, &mut |_| {}).await
    }
}

#[wasm_bindgen]
impl Zebra {
    /// What runs, and where.
    pub fn info(&self) -> JsModelInfo {
        to_js(&self.info).unchecked_into()
    }

    /// GPU bytes by purpose.
    pub fn memory(&self) -> JsGpuBytes {
        to_js(&GpuBytes::of(self.gpu.borrow().allocated())).unchecked_into()
    }

    /// What the kernels' self-test found: `"ok"`, or why plain ones run. To be kept by adapter and version, and given
    /// to the next load.
    pub fn verdict(&self) -> String {
        self.verdict.clone()
    }

    /// The ids of a text; `special` adds what the tokenizer puts around one.
    pub fn tokenize(&self, text: &str, special: bool) -> Result<Uint32Array, JsValue> {
        let ids = self.tokenizer.encode(text, special).map_err(|e| self.error(e))?;
        Ok(Uint32Array::from(ids.as_slice()))
    }

    /// The text of ids, special tokens left out.
    pub fn detokenize(&self, ids: &[u32]) -> Result<String, JsValue> {
        self.tokenizer.decode(ids).map_err(|e| self.error(e))
    }

    /// The prompt of a chat.
    #[wasm_bindgen(js_name = encodeChat)]
    pub fn encode_chat(&self, messages: JsMessages) -> Result<Uint32Array, JsValue> {
        let encode = || {
            let messages: Vec<ChatMessage> = from_js(messages)?;
            self.idle()?.encode_chat(&self.with_ids(&messages))
        };
        encode().map(|ids| Uint32Array::from(ids.as_slice())).map_err(|e| self.error(e))
    }

    /// One answer, told token by token. One at a time. `is_aborted` is asked between the parts of a prompt, which ends
    /// it with the code `aborted`, and after each token, which ends the answer there. `on_event` hears of a lost device
    /// that is brought back: the answer then goes on where it was.
    pub async fn generate(
        &self,
        request: JsGenerateRequest,
        on_piece: OnPiece,
        on_event: OnProgress,
        is_aborted: IsAborted,
    ) -> Result<JsAnswer, JsValue> {
        let answer = async {
            let request: GenerateRequest = from_js(request)?;
            let mut engine = self.engine.lock().await;
            let prompt = self.prompt(&engine, &request.prompt)?;
            let seed = request.seed.unwrap_or_else(|| (js_sys::Math::random() * f64::from(u32::MAX)) as u32);
            let mut options = request.options(engine.defaults(), seed);
            options.abort = Some(Rc::new(move || {
                let asked = is_aborted.unchecked_ref::<js_sys::Function>().call0(&JsValue::NULL);
                asked.is_ok_and(|answer| answer.is_truthy())
            }));
            let (mut shown, mut losses) = (0, 0);
            let done = loop {
                match self.attempt(&mut engine, &prompt, &mut options, &mut shown, &on_piece).await {
                    Err(Error::DeviceLost(_)) if losses < MOST_LOSSES => {
                        losses += 1;
                        tell(&on_event, Phase::Recovering);
                        self.revive(&mut engine).await?;
                    }
                    other => break other?,
                }
            };
            self.remember(&engine, &done);
            Ok(Answer {
                rest: done.text.get(shown..).unwrap_or_default().to_owned(),
                text: done.text,
                ids: done.ids,
                finish_reason: done.finish_reason.name(),
                prompt_tokens: done.prompt_tokens,
                cached_tokens: done.cached_tokens,
                seed,
            })
        };
        let answer = answer.await;
        answer.map(|answer| to_js(&answer).unchecked_into()).map_err(|e| self.error(e))
    }

    /// Keeps the state after what was read last, until [`Zebra::drop_snapshot`].
    #[wasm_bindgen(js_name = takeSnapshot)]
    pub async fn take_snapshot(&self) -> Result<u32, JsValue> {
        let snapshot = self.engine.lock().await.snapshot(SLOT).await.map_err(|e| self.error(e))?;
        let id = self.next_snapshot.get();
        self.next_snapshot.set(id + 1);
        self.snapshots.borrow_mut().insert(id, snapshot);
        Ok(id)
    }

    /// Brings a state back. One that was lost with its device is read again by the next answer instead.
    #[wasm_bindgen(js_name = restoreSnapshot)]
    pub fn restore_snapshot(&self, id: u32) -> Result<(), JsValue> {
        let Some(snapshot) = self.snapshots.borrow().get(&id).cloned() else { return Ok(()) };
        let mut engine = self.idle().map_err(|e| self.error(e))?;
        engine.restore(SLOT, &snapshot).map_err(|e| self.error(e))
    }

    /// Gives a snapshot's memory back.
    #[wasm_bindgen(js_name = dropSnapshot)]
    pub fn drop_snapshot(&self, id: u32) {
        self.snapshots.borrow_mut().remove(&id);
    }

    /// Tokens that have been read.
    pub fn tokens(&self) -> Result<Uint32Array, JsValue> {
        let engine = self.idle().map_err(|e| self.error(e))?;
        Ok(Uint32Array::from(engine.tokens(SLOT)))
    }

    /// Destroys the device, as a driver that resets does: the next step brings it back.
    #[wasm_bindgen(js_name = loseDevice)]
    pub fn lose_device(&self) {
        self.gpu.borrow().destroy();
    }
}

impl Info {
    fn new(engine: &Engine, name: String, kernels: KernelChoice, verdict: &str) -> Self {
        let (plan, config) = (engine.model().plan(), engine.config());
        let gpu = engine.model().gpu();
        let position = plan.state.position_bytes();
        Self {
            name,
            family: config.family.name(),
            parameters: engine.parameters() as f64,
            format: plan.options.preset.to_string(),
            cache: plan.options.cache.name(),
            context: engine.context(),
            vocab_size: config.vocab_size,
            layers: config.layers.iter().map(|layer| layer.mixer.name()).collect(),
            chat: engine.template().is_some(),
            adapter: Adapter {
                name: gpu.description().name.clone(),
                driver: gpu.description().driver.clone(),
                software: gpu.description().is_software(),
                subgroups: gpu.has_subgroups(),
            },
            kernels: if kernels == KernelChoice::Plain { "plain" } else { "auto" },
            self_test: Some(verdict.to_owned()).filter(|verdict| verdict != ALL_RIGHT),
            dispatches_per_token: plan.dispatches_per_token().total,
            cache_bytes_per_token: position as f64,
            // The base Transformer's cache holds f16.
            cache_percent_of_base: 100.0 * position as f64 / (2 * config.base_cache_elements()).max(1) as f64,
        }
    }
}
