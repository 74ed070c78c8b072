#!/usr/bin/env bash
# All tests: form, lints, the workspace's tests on a Vulkan adapter, shaders through naga and Tint, the runtime in a
# browser, the npm package as its users have it, the chat page.
set -euo pipefail
cd "$(dirname "$0")/.."

# Mesa's device-select layer asks a display server which GPU is the main one, and complains where there is none.
[ -n "${XDG_RUNTIME_DIR:-}" ] || export NODEVICE_SELECT=1

step() { printf '\n== %s\n' "$*"; }
need() { echo "test: $1; scripts/setup-test-tools.sh installs it" >&2; exit 1; }

# Nothing is skipped for want of a tool: said now, not after the long builds.
ldconfig -p | grep -q 'libvulkan\.so\.1' || need "the Vulkan loader is missing"
compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null ||
  need "no Vulkan driver is there"
[ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || need "Chromium is missing"
command -v chromedriver >/dev/null || need "chromedriver is missing"
[ -d tests/browser/node_modules/playwright-core ] || need "playwright-core is missing"
[ -d web/node_modules/typescript ] || need "the packages of web/ are missing"
[ -x .tools/bin/wasm-bindgen-test-runner ] || need "wasm-bindgen-cli is missing"
python3 -m pip --version >/dev/null 2>&1 || need "python3 or its pip is missing"
wasm=wasm32-unknown-unknown
[ -f .tools/wasm/env.sh ] || [ -d "$(rustc --print target-libdir --target $wasm)" ] || need "the wasm32 target is missing"

step "form"
cargo fmt --all --check

step "lints"
cargo clippy --workspace --all-targets -- -D warnings

step "tests"
# A pretrained model that others made; here already after the first time.
python3 scripts/fetch-smollm2.py .tools/smollm2
cargo test --workspace --no-fail-fast -- --show-output

step "wasm32, in a browser"
(
  root=$PWD
  [ ! -f .tools/wasm/env.sh ] || . .tools/wasm/env.sh
  cargo clippy -p zebra-runtime -p zebra-web --target $wasm --all-targets -- -D warnings
  export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$root/.tools/bin/wasm-bindgen-test-runner
  CHROMEDRIVER=$(command -v chromedriver) WASM_BINDGEN_TEST_TIMEOUT=600 \
    cargo test --profile wasm-release -p zebra-web --target $wasm --test web -- --nocapture
)

step "the npm package and the chat page: build, types"
# The types of the wasm door are made by the build.
npm --prefix web run --silent build
npm --prefix web run --silent check

step "the npm package and the chat page: in a browser"
node --test --test-concurrency=1 --test-reporter=spec tests/browser/*.test.mjs

printf '\nall tests passed\n'
