pub fn run(_: &crate::args::InfoArgs, _: Option<&str>) -> anyhow::Result<()> {
    anyhow::bail!("stub")
}
