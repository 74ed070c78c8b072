#!/usr/bin/env bash
# Installs what the tests need beyond rustup and Node: Python's pip, a Vulkan driver, Chromium with its driver, npm
# packages, the wasm32 target and wasm-bindgen.
# Runs again at no cost. On Debian and Ubuntu packages come from apt; elsewhere it says what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "root rights are needed for: $*"
  fi
}

apt_updated=
apt_install() {
  command -v apt-get >/dev/null || die "please install what these Debian packages hold: $*"
  say "installing $*"
  if [ -z "$apt_updated" ]; then
    as_root apt-get update -qq
    apt_updated=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# --- Rust, a linker, Node ---
command -v cargo >/dev/null || die "cargo is missing: install Rust 1.87 or newer with rustup"
command -v cc >/dev/null || apt_install build-essential
for component in rustfmt clippy; do
  cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component"
done
node_major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/')
[ "${node_major:-0}" -ge 20 ] || die "Node 20 or newer is needed, found ${node_major:-none}"

# --- Python with pip: fetches the pretrained model that a test runs ---
python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip

# --- A Vulkan driver: the machine's own, else Mesa's software one ---
if ! ldconfig -p | grep -q 'libvulkan\.so\.1'; then
  apt_install libvulkan1
fi
if ! compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null && ! compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null; then
  apt_install mesa-vulkan-drivers
fi

# --- Chromium, and what drives it ---
if [ -z "${CHROMIUM:-}" ] && ! command -v chromium >/dev/null; then
  apt_install chromium
fi
command -v chromedriver >/dev/null || apt_install chromium-driver
for folder in web tests/browser; do
  if ! cmp -s $folder/package-lock.json $folder/node_modules/.installed; then
    say "installing npm packages into $folder/node_modules"
    npm ci --silent --no-fund --no-audit --prefix $folder
    cp $folder/package-lock.json $folder/node_modules/.installed
  fi
done

# --- wasm32: by rustup where it can download, else Debian's compiler with a std built from Debian's sources ---
target=wasm32-unknown-unknown
tools=$PWD/.tools/wasm
if [ -d "$(rustc --print target-libdir --target $target)" ]; then
  rm -f "$tools/env.sh"
elif rustup target add $target; then
  rm -f "$tools/env.sh"
else
  say "rustup could not add $target; taking Debian's compiler"
  lld=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/rust-lld
  apt_install rustc-web cargo-web rust-web-src rust-web-clippy
  # Both packages have one version, so this std is the compiler's own. It is in the path because cargo does not notice
  # a changed sysroot.
  sysroot=$tools/sysroot-$(/usr/bin/rustc --version | tr -c 'A-Za-z0-9.\n' _)
  if [ ! -f "$sysroot/complete" ]; then
    say "building std for $target"
    stub=$(mktemp -d)
    trap 'rm -rf "$stub"' EXIT
    mkdir "$stub/src"
    : >"$stub/src/lib.rs"
    printf '[package]\nname = "stub"\nversion = "0.0.0"\nedition = "2021"\n[profile.release]\npanic = "abort"\n' >"$stub/Cargo.toml"
    # With bitcode, without which link-time optimisation fails.
    (cd "$stub" && RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$stub/target" \
      CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS=-Cembed-bitcode=yes \
      /usr/bin/cargo build -q --release --target $target -Zbuild-std=std,panic_abort)
    rm -rf "$sysroot"
    mkdir -p "$sysroot/lib/rustlib/$target/lib"
    cp "$stub/target/$target"/release/deps/*.rlib "$sysroot/lib/rustlib/$target/lib/"
    rm -f "$sysroot/lib/rustlib/$target/lib"/libstub-*
    touch "$sysroot/complete"
  fi
  # For wasm builds only, in a shell of their own: it changes the compiler.
  cat >"$tools/env.sh" <<ENV
export RUSTC=/usr/bin/rustc PATH=/usr/bin:\$PATH CARGO_TARGET_DIR=target/wasm-debian
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$lld
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS=--sysroot=$sysroot
ENV
fi

# --- wasm-bindgen of the very version that the crates are locked to: their formats differ ---
wasm_bindgen=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
if [ "$(.tools/bin/wasm-bindgen --version 2>/dev/null)" != "wasm-bindgen $wasm_bindgen" ]; then
  say "installing wasm-bindgen-cli $wasm_bindgen into .tools"
  cargo install -q wasm-bindgen-cli --version "$wasm_bindgen" --root .tools --force
fi
say "everything is there"
