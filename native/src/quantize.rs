pub fn run(_: &crate::args::QuantizeArgs) -> anyhow::Result<()> {
    anyhow::bail!("stub")
}
