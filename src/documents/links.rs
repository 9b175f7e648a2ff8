//! Links between documents lead somewhere.

use std::collections::BTreeSet;
use std::fs;

use super::documents;

/// What a heading is called in an address, as GitHub makes it.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let slug = |heading: &str| heading.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>();
    headings.map(|heading| slug(heading.trim()).replace(' ', "-")).collect()
}

/// Addresses of links outside of code.
fn links(text: &str) -> Vec<&str> {
    let outside = text.split("```").step_by(2).flat_map(|prose| prose.split("](").skip(1));
    outside.filter_map(|rest| rest.split_once(')')).map(|(address, _)| address).collect()
}

#[test]
fn every_link_between_documents_leads_to_a_file_and_a_heading() {
    let mut seen = 0;
    for (path, text) in documents() {
        for address in links(&text).into_iter().filter(|address| !address.contains("://")) {
            seen += 1;
            let (file, anchor) = address.split_once('#').unwrap_or((address, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let shown = format!("{}: {address}", path.display());
            assert!(target.exists(), "{shown} leads nowhere");
            if !anchor.is_empty() {
                let there = anchors(&fs::read_to_string(&target).unwrap());
                assert!(there.contains(anchor), "{shown}: no such heading among {there:?}");
            }
        }
    }
    assert!(seen > 20, "only {seen} links were found");
}
