//! Links `shaders/*.wesl` into plain WGSL, checks every permutation with naga and writes one typed Rust module a kernel
//! family: named bindings, a parameter struct, an enum for every axis of permutations. Nothing of it runs later.
//!
//! A family names its axes in comments at the top of its file, `// axis tile: straight tiled`: one feature of each axis
//! is set in every permutation. `// with normed` sets a feature in all of them. The axis `format` is the type
//! `WeightFormat`, common to all families.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use naga::{AddressSpace, ScalarKind, TypeInner};
use wesl::Wesl;

type Failure = Box<dyn std::error::Error>;

/// The axis that all families with weights share.
const FORMAT: &str = "format";

/// A set of features of which exactly one is on.
struct Axis {
    name: String,
    features: Vec<String>,
}

/// A binding of the family: its kind and the type of its elements are the same in all permutations.
#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Uniform,
    Read,
    Write,
}

struct Permutation {
    name: String,
    workgroup: [u32; 3],
    /// Bytes of workgroup memory.
    shared: u32,
    bindings: Vec<(u32, String, Kind)>,
    /// Rust's text of the parameter struct's fields.
    params: String,
}

fn main() {
    println!("cargo::rerun-if-changed=shaders");
    println!("cargo::rerun-if-changed=build.rs");
    commit();
    if let Err(e) = generate() {
        for line in e.to_string().lines() {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

/// Tells the library which commit it is built from, where this is a clone: `bench` says so.
fn commit() {
    let git = |args: &[&str]| {
        let out = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8(out.stdout).ok()?.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return };
    println!("cargo::rustc-env=GROMA_COMMIT={commit}");
    // HEAD names a branch, whose file moves with every commit, or lies among the packed ones
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    for name in ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--git-path", name]).filter(|p| Path::new(p).exists());
        if let Some(path) = path {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn generate() -> Result<(), Failure> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut rust = String::new();
    let files = sorted_files(Path::new("shaders"))?;
    let failures: Vec<String> =
        files.iter().filter_map(|f| family(f, &out, &mut rust).err()).map(|e| e.to_string()).collect();
    if !failures.is_empty() {
        return Err(failures.join("\n").into());
    }
    writeln!(rust, "/// The permutations of every family.\npub static FAMILIES: &[&[Permutation]] = &[")?;
    for stem in files.iter().filter_map(|f| f.file_stem()).filter_map(|s| s.to_str()) {
        writeln!(rust, "    &{stem}::PERMUTATIONS,")?;
    }
    writeln!(rust, "];")?;
    fs::write(out.join("kernels.rs"), rust)?;
    Ok(())
}

/// The families' files by name, so that the result does not depend on the file system's order.
fn sorted_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<Result<_, Failure>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "wesl"));
    files.sort();
    Ok(files)
}

fn family(file: &Path, out: &Path, rust: &mut String) -> Result<(), Failure> {
    let stem = file.file_stem().and_then(|s| s.to_str()).ok_or("a shader without a name")?.to_owned();
    let text = fs::read_to_string(file)?;
    let axes = axes(&text);
    let fixed: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("// with ")).map(str::trim).collect();
    let mut permutations = Vec::new();
    for choice in choices(&axes) {
        permutations
            .push(permutation(&stem, &axes, &fixed, &choice, out).map_err(|e| format!("{stem} {choice:?}: {e}"))?);
    }
    emit(&stem, &text, &axes, &permutations, rust)
}

fn axes(text: &str) -> Vec<Axis> {
    text.lines()
        .filter_map(|l| l.strip_prefix("// axis "))
        .filter_map(|l| l.split_once(':'))
        .map(|(name, features)| Axis {
            name: name.trim().to_owned(),
            features: features.split_whitespace().map(str::to_owned).collect(),
        })
        .collect()
}

/// All choices of one feature an axis, the last axis fastest.
fn choices(axes: &[Axis]) -> Vec<Vec<String>> {
    axes.iter().fold(vec![Vec::new()], |all, axis| {
        all.iter()
            .flat_map(|c| axis.features.iter().map(move |f| c.iter().cloned().chain([f.clone()]).collect()))
            .collect()
    })
}

fn permutation(
    stem: &str,
    axes: &[Axis],
    fixed: &[&str],
    choice: &[String],
    out: &Path,
) -> Result<Permutation, Failure> {
    let mut wesl = Wesl::new("shaders");
    for feature in fixed {
        wesl.set_feature(feature, true);
    }
    for feature in axes.iter().flat_map(|a| &a.features) {
        wesl.set_feature(feature, choice.contains(feature));
    }
    wesl.set_missing_feature_behavior(false);
    let linked = wesl.compile(&format!("package::{stem}").parse()?).map_err(|e| e.to_string())?.to_string();
    let name = std::iter::once(stem).chain(choice.iter().map(String::as_str)).collect::<Vec<_>>().join("_");
    fs::write(out.join(format!("{name}.wgsl")), &linked)?;
    let module = naga::front::wgsl::parse_str(&linked).map_err(|e| e.emit_to_string(&linked))?;
    // core WGSL's unpack2x16float, which naga counts apart
    let capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| e.emit_to_string(&linked))?;
    reflect(name, &module)
}

fn reflect(name: String, module: &naga::Module) -> Result<Permutation, Failure> {
    let entry = module.entry_points.iter().find(|e| e.name == "main").ok_or("no entry point `main`")?;
    let mut bindings = Vec::new();
    let mut params = String::new();
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx())?;
    let mut shared = 0;
    for (_, global) in module.global_variables.iter() {
        if global.space == AddressSpace::WorkGroup {
            shared += layouter[global.ty].size;
        }
        let Some(binding) = &global.binding else { continue };
        let full = global.name.clone().unwrap_or_default();
        // an imported binding carries its module's path: package_parts_weights_w
        let short = full.rsplit('_').next().unwrap_or_default().to_owned();
        let kind = match global.space {
            AddressSpace::Uniform => {
                params = fields(module, &module.types[global.ty].inner)?;
                Kind::Uniform
            }
            AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => Kind::Write,
            AddressSpace::Storage { .. } => Kind::Read,
            _ => return Err(format!("{full} is neither uniform nor storage").into()),
        };
        bindings.push((binding.binding, short, kind));
    }
    bindings.sort_by_key(|b| b.0);
    if bindings.iter().filter(|b| b.2 != Kind::Uniform).count() > 8 {
        return Err("more than 8 storage buffers".into());
    }
    Ok(Permutation { name, workgroup: entry.workgroup_size, shared, bindings, params })
}

/// The parameter struct's fields in Rust; they must lie as `repr(C)` lays them.
fn fields(module: &naga::Module, inner: &TypeInner) -> Result<String, Failure> {
    let TypeInner::Struct { members, .. } = inner else { return Err("parameters are a struct".into()) };
    let mut text = String::new();
    let mut end = 0;
    for m in members {
        let (ty, size) = rust_type(module, &module.types[m.ty].inner)?;
        if m.offset != end {
            return Err(format!("parameter {:?} would need padding", m.name).into());
        }
        end = m.offset + size;
        let name = m.name.clone().ok_or("a parameter without a name")?;
        writeln!(text, "        /// `{name}` of the shader's parameters.\n        pub {name}: {ty},")?;
    }
    Ok(text)
}

fn rust_type(module: &naga::Module, inner: &TypeInner) -> Result<(String, u32), Failure> {
    let scalar = |s: naga::Scalar| match s.kind {
        ScalarKind::Uint => Ok("u32"),
        ScalarKind::Float => Ok("f32"),
        _ => Err("parameters are u32 or f32"),
    };
    match inner {
        TypeInner::Scalar(s) => Ok((scalar(*s)?.to_owned(), 4)),
        TypeInner::Vector { size: naga::VectorSize::Quad, scalar: s } => Ok((format!("[{}; 4]", scalar(*s)?), 16)),
        TypeInner::Array { base, size: naga::ArraySize::Constant(n), .. } => {
            let (ty, size) = rust_type(module, &module.types[*base].inner)?;
            Ok((format!("[{ty}; {n}]"), size * n.get()))
        }
        _ => Err("a parameter of a type that build.rs does not know".into()),
    }
}

fn camel(name: &str) -> String {
    name.split('_')
        .map(|w| w.chars().take(1).flat_map(char::to_uppercase).chain(w.chars().skip(1)).collect::<String>())
        .collect()
}

fn emit(stem: &str, text: &str, axes: &[Axis], all: &[Permutation], rust: &mut String) -> Result<(), Failure> {
    let doc: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("//! ")).collect();
    // a binding may be missing in some permutations, but never change its meaning
    let mut union: BTreeMap<u32, (String, Kind)> = BTreeMap::new();
    for p in all {
        for (index, name, kind) in &p.bindings {
            let known = union.entry(*index).or_insert_with(|| (name.clone(), kind.clone()));
            if *known != (name.clone(), kind.clone()) {
                return Err(format!("{}: binding {index} differs between permutations", p.name).into());
            }
        }
        if p.params != all[0].params {
            return Err(format!("{}: parameters differ between permutations", p.name).into());
        }
    }
    let storage: Vec<(&u32, &String, &Kind)> =
        union.iter().filter(|(_, b)| b.1 != Kind::Uniform).map(|(i, b)| (i, &b.0, &b.1)).collect();
    let family = camel(stem);
    let w = &mut *rust;
    writeln!(w, "/// {}", doc.first().ok_or("a shader begins with `//! what it computes`")?)?;
    writeln!(w, "pub mod {stem} {{\n    use crate::tensor::gpu::kernels::*;\n")?;
    writeln!(w, "    /// Uniforms of one dispatch.\n    #[repr(C)]")?;
    writeln!(w, "    #[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]")?;
    writeln!(w, "    pub struct Params {{\n{}    }}\n", all[0].params)?;
    for axis in axes.iter().filter(|a| a.name != FORMAT) {
        writeln!(w, "    /// Axis `{}` of the permutations.", axis.name)?;
        writeln!(w, "    #[derive(Clone, Copy, Debug, PartialEq, Eq)]\n    pub enum {} {{", camel(&axis.name))?;
        for f in &axis.features {
            writeln!(w, "        /// Feature `{f}`.\n        {},", camel(f))?;
        }
        writeln!(w, "    }}\n")?;
    }
    writeln!(w, "    /// {}", doc.join("\n    /// "))?;
    writeln!(w, "    #[derive(Clone, Debug)]\n    pub struct {family} {{")?;
    for axis in axes {
        let ty = if axis.name == FORMAT { "WeightFormat".to_owned() } else { camel(&axis.name) };
        writeln!(w, "        /// Which permutation.\n        pub {}: {ty},", axis.name)?;
    }
    for (index, name, kind) in &storage {
        let ty = if **kind == Kind::Write { "Write" } else { "Read" };
        writeln!(w, "        /// Binding {index}.\n        pub {name}: {ty},")?;
    }
    writeln!(w, "        /// Uniforms.\n        pub params: Params,\n    }}\n")?;
    writeln!(w, "    impl Kernel for {family} {{\n        fn call(self) -> Call {{")?;
    let mut index = String::new();
    for axis in axes {
        let place = if axis.name == FORMAT {
            format!("self.format.place(&{:?})", axis.features)
        } else {
            format!("self.{} as usize", axis.name)
        };
        index = match index.as_str() {
            "" => place,
            before => format!("({before}) * {} + {place}", axis.features.len()),
        };
    }
    let index = if index.is_empty() { "0" } else { &index };
    writeln!(w, "            let permutation = &PERMUTATIONS[{index}];")?;
    let binds: Vec<String> = storage.iter().map(|(i, name, _)| format!("({i}, self.{name}.0)")).collect();
    writeln!(w, "            let params = bytemuck::bytes_of(&self.params).to_vec();")?;
    writeln!(w, "            Call::new(permutation, vec![{}], params)\n        }}\n    }}\n", binds.join(", "))?;
    writeln!(w, "    /// Every permutation, the last axis fastest.")?;
    writeln!(w, "    pub static PERMUTATIONS: [Permutation; {}] = [", all.len())?;
    for p in all {
        let bindings: Vec<String> = p
            .bindings
            .iter()
            .map(|(i, _, k)| {
                let kind = match k {
                    Kind::Uniform => "Uniform",
                    Kind::Read => "Read",
                    Kind::Write => "Write",
                };
                format!("({i}, Kind::{kind})")
            })
            .collect();
        writeln!(w, "        Permutation {{")?;
        writeln!(w, "            name: \"{}\",", p.name)?;
        writeln!(w, "            wgsl: include_str!(concat!(env!(\"OUT_DIR\"), \"/{}.wgsl\")),", p.name)?;
        writeln!(w, "            workgroup: {:?},", p.workgroup)?;
        writeln!(w, "            shared: {},", p.shared)?;
        writeln!(w, "            bindings: &[{}],\n        }},", bindings.join(", "))?;
    }
    writeln!(w, "    ];\n}}\n")?;
    Ok(())
}
