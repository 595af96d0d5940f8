//! Files of statements: blocks between empty lines, each with a name in a comment before it.

/// One statement of a file.
#[derive(Debug)]
pub(crate) struct Block {
    /// The heading that it stands under.
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) sql: String,
}

/// The blocks of `text`. A line `-- # …` is a heading.
pub(crate) fn blocks(text: &str) -> Vec<Block> {
    let mut group = String::new();
    let mut blocks: Vec<Block> = Vec::new();
    for block in text.split("\n\n") {
        let block = block.trim_matches('\n');
        if let Some(heading) = block.strip_prefix("-- # ") {
            heading.clone_into(&mut group);
            continue;
        }
        if block.is_empty() {
            continue;
        }
        let (name, sql) = block
            .strip_prefix("-- ")
            .and_then(|block| block.split_once('\n'))
            .unwrap_or_else(|| panic!("a block begins with its name: {block}"));
        let (name, sql) = (name.to_owned(), sql.to_owned());
        assert!(blocks.iter().all(|other| other.name != name), "two are called {name}");
        blocks.push(Block { group: group.clone(), name, sql });
    }
    blocks
}
