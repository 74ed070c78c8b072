fn main() {
    println!("cargo::rustc-env=ZEBRA_COMMIT=unknown");
    let out = std::env::var("OUT_DIR").unwrap();
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/zebra-pocket");
    let mut s = String::from("pub static FILES: &[(&str, &[u8])] = &[\n");
    for e in std::fs::read_dir(dir).unwrap() {
        let p = e.unwrap().path();
        s += &format!("({:?}, include_bytes!({:?})),\n", p.file_name().unwrap().to_str().unwrap(), p);
    }
    std::fs::write(format!("{out}/embedded_files.rs"), s + "];").unwrap();
}
