pub fn run(_: &crate::args::LogitsArgs, _: Option<&str>) -> anyhow::Result<()> {
    anyhow::bail!("stub")
}
