#!/usr/bin/env bash
# All tests: form, lints, the workspace's tests on a Vulkan adapter, shaders through naga and Tint, the wasm32 build.
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
[ -d tests/browser/node_modules/playwright-core ] || need "playwright-core is missing"
wasm=wasm32-unknown-unknown
[ -f .tools/wasm/env.sh ] || [ -d "$(rustc --print target-libdir --target $wasm)" ] || need "the wasm32 target is missing"

step "form"
cargo fmt --all --check

step "lints"
cargo clippy --workspace --all-targets -- -D warnings

step "tests"
cargo test --workspace --no-fail-fast -- --show-output

step "wasm32"
(
  [ ! -f .tools/wasm/env.sh ] || . .tools/wasm/env.sh
  cargo clippy -p zebra-runtime -p zebra-web --target $wasm -- -D warnings
  cargo build -p zebra-runtime -p zebra-web --target $wasm
)

printf '\nall tests passed\n'
