fn main() {
    // Without a line like this any changed file of the package, a test of the page for one, would build everything anew.
    println!("cargo::rerun-if-changed=build.rs");
}
