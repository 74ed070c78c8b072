pub fn run(_: &crate::args::KldArgs, _: Option<&str>) -> anyhow::Result<()> {
    anyhow::bail!("stub")
}
