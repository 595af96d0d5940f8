//! The example of the README works.

#[path = "../examples/embed.rs"]
#[expect(dead_code, reason = "its main is for people")]
mod example;

#[test]
fn the_embedding_example_does_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let cost = tenantry::vault::KdfCost::insecure_for_tests();
    example::run(&directory.path().join("data"), cost).unwrap();
}
