pub fn run(_: &crate::args::MakeRandomArgs) -> anyhow::Result<()> {
    anyhow::bail!("stub")
}
