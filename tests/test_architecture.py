"""The rules of the package, read from its source: classes, layers of imports, sizes, optional dependencies."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hybridgcm"
SOURCES = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in PACKAGE.rglob("*.py")}
TREES = {name.removesuffix(".__init__"): ast.parse(path.read_text()) for name, path in SOURCES.items()}
MAX_NAMES, MAX_FILE, MAX_FUNCTION = 50, 300, 60

CORE = {"_typing", "grids", "equations", "nn", "steppers", "closures", "models"}
LAYERS = {
    "_typing": set(),
    "grids": {"_typing"},
    "equations": {"_typing", "grids"},
    "nn": {"_typing", "grids"},
    "steppers": {"_typing", "grids", "equations.base"},
    "closures": {"_typing", "grids", "nn"},
    "models": CORE,
    "rollout": CORE,
}
"""What each module or folder may import besides itself. Every other module stands above `rollout`."""
HOMES = {
    "optax": {"train"},
    "xarray": {"data", "inputs", "pairs", "qg3"},
    "zarr": {"data", "inputs"},
    "netCDF4": {"data", "inputs", "pairs"},
    "matplotlib": {"plot", "maps"},
    "cartopy": {"maps"},
    "cmocean": {"plot"},
    "PIL": {"plot"},
    "diffrax": {"steppers"},
}
"""Where a library may be imported."""
OPTIONAL = (
    "xarray",
    "zarr",
    "netCDF4",
    "tyro",
    "matplotlib",
    "cmocean",
    "cartopy",
    "pandas",
    "PIL",
    "diffrax",
    "beartype",
    "pytest",
)


def imports(tree):
    """Full dotted names that a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, module):
    return name == module or name.startswith(module + ".")


def part(module):
    """hybridgcm.closures.base -> closures"""
    return module.split(".")[1] if "." in module else ""


# Classes


def classes():
    """Every class by name: (module, node, names of its bases)."""
    found = {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                assert node.name not in found, f"two classes are named {node.name}"
                found[node.name] = (
                    module,
                    node,
                    [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases],
                )
    return found


CLASSES = classes()


def ancestors(name):
    for base in CLASSES[name][2] if name in CLASSES else ():
        yield base
        yield from ancestors(base)


MODULES = [name for name in CLASSES if "Module" in ancestors(name)]


def methods(node, abstract):
    """Names of abstract or of concrete methods."""
    marked = lambda f: any("abstract" in ast.unparse(d) for d in f.decorator_list)
    return {f.name for f in node.body if isinstance(f, ast.FunctionDef) and marked(f) == abstract}


def test_there_are_classes_to_check():
    assert {"Torus", "QuasiGeostrophic", "AB3", "Model", "State"} <= set(MODULES) and len(MODULES) > 15


@pytest.mark.parametrize("name", MODULES)
def test_every_module_class_is_abstract_or_final(name):
    _, node, bases = CLASSES[name]
    variables = [a for a in node.body if isinstance(a, ast.AnnAssign) and "AbstractVar" in ast.unparse(a.annotation)]
    if name.startswith("Abstract"):
        assert methods(node, True) or variables, f"{name} has nothing abstract"
    else:
        assert not methods(node, True) and not variables, f"{name} is final by its name, yet has abstract members"
    for base in bases:
        assert base == "Module" or base.startswith("Abstract"), (
            f"{name} subclasses the final class {base}; wrap it instead"
        )
    inherited = {m: a for a in ancestors(name) if a in CLASSES for m in methods(CLASSES[a][1], False)}
    overridden = {m: a for m, a in inherited.items() if m in methods(node, False) | methods(node, True)}
    assert not overridden, f"{name} overrides concrete methods: {overridden}"


@pytest.mark.parametrize("name", MODULES)
def test_no_module_class_calls_super(name):
    assert "super()" not in ast.unparse(CLASSES[name][1])


# Layers


@pytest.mark.parametrize("module", [name for name in TREES if "." in name])
def test_imports_follow_the_layers(module):
    here = part(module)
    for name in imports(TREES[module]):
        if not name.startswith("hybridgcm."):
            assert name != "hybridgcm", f"{module} imports the whole package"
            continue
        target = name.removeprefix("hybridgcm.")
        if here in LAYERS and not within(target, here):
            assert any(within(target, allowed) for allowed in LAYERS[here]), f"{module} may not import {name}"
    assert not any(within(name, top) for name in imports(TREES[module]) for top in ("experiments", "tests"))


def test_no_two_parts_import_each_other():
    graph = {}
    for module, tree in TREES.items():
        if part(module):
            graph.setdefault(part(module), set()).update(part(n) for n in imports(tree) if n.startswith("hybridgcm."))
    order, left = [], {here: targets - {here, ""} for here, targets in graph.items()}
    while left:
        free = [here for here, targets in left.items() if not targets & set(left)]
        assert free, f"a cycle among {sorted(left)}"
        order += free
        left = {here: targets for here, targets in left.items() if here not in free}
    assert order.index("grids") < order.index("models") < order.index("rollout")


@pytest.mark.parametrize("module", list(TREES))
def test_libraries_stay_in_their_homes(module):
    for library in {name.split(".")[0] for name in imports(TREES[module])} & set(HOMES):
        assert part(module) in HOMES[library], f"{module} imports {library}; only {HOMES[library]} may"
    top = ast.Module([n for n in TREES[module].body if isinstance(n, ast.Import | ast.ImportFrom)], [])
    heavy = [name for name in imports(top) if name.split(".")[0] in OPTIONAL]
    assert not heavy, f"{module} imports {heavy} at its top; import optional libraries inside functions"


# Sizes, names, words


def test_the_public_namespace_is_small():
    names = [
        a.asname or a.name
        for n in TREES["hybridgcm"].body
        if isinstance(n, ast.ImportFrom | ast.Import)
        for a in n.names
    ]
    public = [name for name in names if not name.startswith("_")]
    assert len(public) == len(set(public)) <= MAX_NAMES, len(public)
    others = [ast.unparse(n) for n in TREES["hybridgcm"].body[1:] if not isinstance(n, ast.ImportFrom | ast.Import)]
    assert not others, f"__init__ holds the public names and nothing else: {others}"


FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE, f"{text.count(chr(10))} lines, at most {MAX_FILE}"
    sizes = {n.name: n.end_lineno - n.lineno + 1 for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)}
    long = {name: size for name, size in sizes.items() if size > MAX_FUNCTION}
    assert not long, f"functions of more than {MAX_FUNCTION} lines: {long}"


@pytest.mark.parametrize("module", list(TREES))
def test_everything_public_is_documented(module):
    assert ast.get_docstring(TREES[module]), f"{module} has no docstring"
    kinds = ast.FunctionDef | ast.ClassDef
    bare = [
        n.name for n in TREES[module].body if isinstance(n, kinds) and n.name[0] != "_" and not ast.get_docstring(n)
    ]
    assert not bare, f"no docstring: {bare}"


@pytest.mark.parametrize("module", [name for name in TREES if part(name) in ("equations", "closures")])
def test_physics_names_no_precision(module):
    words = {"float16", "bfloat16", "float32", "float64", "complex64", "complex128"}
    named = lambda n: getattr(n, "attr", getattr(n, "id", getattr(n, "value", None)))
    nodes = [n for n in ast.walk(TREES[module]) if isinstance(n, ast.Attribute | ast.Name | ast.Constant)]
    found = [f"line {n.lineno}: {ast.unparse(n)}" for n in nodes if isinstance(named(n), str) and named(n) in words]
    assert not found, f"{module} names a dtype; take it from the grid: {found}"


def test_there_is_no_drawer_for_odds_and_ends():
    assert not [name for name in TREES if name.split(".")[-1] in ("utils", "helpers", "common", "misc", "registry")]


# Dependencies


def test_import_works_without_the_optional_packages():
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
import hybridgcm as hg
missing = [n for n in dir(hg) if not n.startswith("_") and getattr(hg, n) is None]
assert not missing and hg.Torus(16, 1.0).shape == (16, 16)
print("imported")
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "imported", run.stderr
