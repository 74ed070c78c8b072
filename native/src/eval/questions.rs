pub fn run(_: &crate::args::QuestionsArgs, _: Option<&str>) -> anyhow::Result<()> {
    anyhow::bail!("stub")
}
