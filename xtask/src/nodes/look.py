"""Finds nodes whose inputs reach files, addresses or code, by reading Python without running it.

Reads the folder given as its argument and writes a JSON list of
{class, input, kind, call, file, line}. An input counts when its value can be text, if only over a link, and comes,
through assignments and functions of the same folder, into a path, an address or a piece of code. What passes through
ComfyUI's own checks of paths counts no more.
"""

import ast
import json
import os
import sys

SKIPPED = {
    ".git", ".github", "__pycache__", "node_modules", "site-packages", "tests", "tests-unit", "test",
    "venv", ".venv", "web", "alembic_db", "script_examples",
}
DEEPEST = 6

# Which argument is the path, by the end of the call's name; a second word makes the name exact.
READS = {
    "open", "os.listdir", "os.scandir", "os.walk", "os.stat", "glob.glob", "glob.iglob", "Image.open",
    "av.open", "cv2.imread", "cv2.VideoCapture", "imageio.imread", "imageio.get_reader", "np.load",
    "numpy.load", "np.loadtxt", "numpy.loadtxt", "torch.load", "torchaudio.load", "soundfile.read", "sf.read",
    "librosa.load", "load_torch_file", "load_file", "safe_open", "VideoFromFile", "File3D", "trimesh.load",
    "pd.read_csv", "pandas.read_csv", "ImageFont.truetype", "shutil.copy", "shutil.copyfile",
    "shutil.copy2", "shutil.copytree", "shutil.move", "os.path.exists", "os.path.isfile",
    "os.path.isdir", "os.path.getmtime", "os.path.getsize", "get_annotated_filepath",
    "exists_annotated_filepath", "fromfile", "read_image", "imread", "ZipFile", "tarfile.open",
}
WRITES = {
    "os.makedirs", "os.mkdir", "os.remove", "os.unlink", "os.rename", "os.replace", "os.rmdir",
    "os.symlink", "shutil.rmtree", "cv2.imwrite", "cv2.VideoWriter", "np.save", "numpy.save", "np.savez",
    "torch.save", "torchaudio.save", "save_file", "save_torch_file", "imageio.imwrite", "imageio.mimsave",
    "get_writer", "FileHandler", "savefig", "to_csv", "extractall", "save", "save_to", "save_all", "imwrite",
    "sf.write", "soundfile.write",
}
ON_PATHS = {
    "read_text": "reads", "read_bytes": "reads", "iterdir": "reads", "rglob": "reads", "glob": "reads",
    "is_file": "reads", "is_dir": "reads", "exists": "reads", "write_text": "writes",
    "write_bytes": "writes", "unlink": "writes", "mkdir": "writes", "rmdir": "writes",
}
FETCHES = {
    "requests.get", "requests.post", "requests.put", "requests.request", "requests.head", "requests.Session",
    "urlopen", "urlretrieve", "httpx.get", "httpx.post", "httpx.stream", "session.get", "session.post",
    "session.request", "client.get", "client.post", "hf_hub_download", "snapshot_download",
    "from_pretrained", "load_dataset", "download_url_to_file", "load_file_from_url", "download_url_to_bytesio",
    "websockets.connect", "create_connection", "socket.connect", "smtplib.SMTP", "ftplib.FTP", "OpenAI", "gdown.download",
    "torch.hub.load", "wget.download",
}
RUNS = {
    "eval", "exec", "compile", "simple_eval", "SimpleEval", "EvalWithCompoundTypes", "literal_eval",
    "subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_call", "subprocess.check_output",
    "os.system", "os.popen", "os.execv", "os.spawnv", "importlib.import_module", "__import__",
    "pickle.load", "pickle.loads", "create_subprocess_exec", "create_subprocess_shell", "runpy.run_path",
    "yaml.load", "joblib.load",
}
KINDS = (("reads", READS), ("writes", WRITES), ("fetches", FETCHES), ("runs code", RUNS))

# What comes out of these stays where ComfyUI wants it, or is no text of the user.
CLEANERS = {
    "get_full_path", "get_full_path_or_raise", "get_save_image_path", "get_filename_list", "len", "int", "float",
    "bool", "isinstance", "get_extension", "SynchronousOperation", "PollingOperation", "sync_op", "sync_op_raw", "poll_op", "poll_op_raw", "hash", "hexdigest",
    "is_within_directory", "mktemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "uuid4",
}
# Names of inputs' types whose values have no use as a path. Numbers are not among them: over a link ComfyUI lets text
# into them.
NOT_TEXT = {
    "AUDIO", "CLIP", "CLIP_VISION", "CLIP_VISION_OUTPUT", "CONDITIONING", "CONTROL_NET", "GUIDER",
    "HOOKS", "IMAGE", "LATENT", "LATENT_OPERATION", "LORA_MODEL", "LOSS_MAP", "MASK", "MESH", "MODEL",
    "MODEL_PATCH", "NOISE", "PHOTOMAKER", "SAMPLER", "SIGMAS", "STYLE_MODEL", "SVG", "UPSCALE_MODEL", "VAE", "VIDEO",
    "VOXEL", "WEBCAM", "GLIGEN", "SEGS", "BBOX", "COLOR",
}
ENTRIES = {
    "execute", "validate_inputs", "fingerprint_inputs", "check_lazy_status", "VALIDATE_INPUTS", "IS_CHANGED",
}


def name_of(node):
    """`a.b.c` of a name or an attribute; a call within counts as nothing."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    elif parts:
        parts.append("?")
    return ".".join(reversed(parts))


def matches(name, names):
    return any(name == known or name.endswith("." + known) for known in names)


class Module:
    def __init__(self, path, shown, tree):
        self.path, self.shown, self.tree = path, shown, tree
        self.functions, self.classes, self.imports = {}, {}, {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                self.classes.setdefault(node.name, node)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = (node.module or "", alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    self.imports[alias.asname or alias.name.split(".")[0]] = (alias.name, None)
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.functions[node.name] = node


def read(root):
    modules, broken = [], []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        for file in sorted(files):
            if not file.endswith(".py"):
                continue
            path = os.path.join(folder, file)
            shown = os.path.relpath(path, root).replace(os.sep, "/")
            try:
                with open(path, encoding="utf-8-sig") as source:
                    tree = ast.parse(source.read(), path)
                modules.append((Module(path, shown, tree), tree))
            except (SyntaxError, ValueError, OSError) as error:
                broken.append(f"{shown}: {error}")
    return modules, broken


class Reader:
    def __init__(self, root):
        self.modules, self.broken = read(root)
        self.by_name = {}
        for module, _ in self.modules:
            for name, function in module.functions.items():
                self.by_name.setdefault(name, []).append((module, function))
        self.classes = {}
        for module, _ in self.modules:
            for name, node in module.classes.items():
                self.classes.setdefault(name, []).append((module, node))
        self.found = {}

    # Which classes are nodes, and what they are called.

    def nodes(self):
        """(id, module, class) of every node."""
        named = set()
        ids = []
        for module, tree in self.modules:
            for node in ast.walk(tree):
                pairs = []
                if isinstance(node, ast.Dict):
                    pairs = zip(node.keys, node.values)
                elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                    pairs = [(node.targets[0].slice, node.value)]
                for key, value in pairs:
                    if isinstance(value, ast.Dict):
                        inner = dict(zip((getattr(one, "value", None) for one in value.keys), value.values))
                        value = inner.get("class", value)
                    if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                        continue
                    name = name_of(value).split(".")[-1]
                    for where, found in self.resolve(module, name):
                        if self.is_node(where, found):
                            ids.append((key.value, where, found))
                            named.add(id(found))
        for module, _ in self.modules:
            for name, node in module.classes.items():
                told = self.schema_id(node)
                if told:
                    ids.append((told, module, node))
                elif id(node) not in named and self.method(module, node, "INPUT_TYPES", own=True):
                    ids.append((name, module, node))
        seen = set()
        for node_id, module, node in ids:
            if (node_id, module.shown, node.name) not in seen:
                seen.add((node_id, module.shown, node.name))
                yield node_id, module, node

    def resolve(self, module, name):
        """Classes that a name of a module may mean."""
        if name in module.classes:
            return [(module, module.classes[name])]
        origin = module.imports.get(name)
        if origin is None and "*" not in module.imports:
            return self.classes.get(name, []) if len(self.classes.get(name, [])) == 1 else []
        wanted = origin[1] if origin else name
        return self.classes.get(wanted, [])[:4]

    def is_node(self, module, node):
        return bool(self.method(module, node, "INPUT_TYPES") or self.method(module, node, "define_schema"))

    def schema_id(self, node):
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and name_of(call.func).split(".")[-1] == "Schema":
                for keyword in call.keywords:
                    if keyword.arg == "node_id" and isinstance(keyword.value, ast.Constant):
                        return keyword.value.value
        return None

    def method(self, module, node, name, own=False, depth=0):
        """(module, class, function), from the class or its bases."""
        for item in node.body:
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)) and item.name == name:
                return module, node, item
        if own or depth > DEEPEST:
            return None
        for base in node.bases:
            for where, found in self.resolve(module, name_of(base).split(".")[-1]):
                if found is not node:
                    result = self.method(where, found, name, depth=depth + 1)
                    if result:
                        return result
        return None

    def attribute(self, module, node, name, depth=0):
        for item in node.body:
            if isinstance(item, ast.Assign) and any(name_of(target) == name for target in item.targets):
                return getattr(item.value, "value", None)
        if depth > DEEPEST:
            return None
        for base in node.bases:
            for where, found in self.resolve(module, name_of(base).split(".")[-1]):
                if found is not node:
                    result = self.attribute(where, found, name, depth + 1)
                    if result:
                        return result
        return None

    def plain_inputs(self, module, node):
        """Inputs whose values are certainly no part of a path."""
        plain = set()
        told = self.method(module, node, "INPUT_TYPES")
        for item in ast.walk(told[2]) if told else ():
            if isinstance(item, ast.Dict):
                for key, value in zip(item.keys, item.values):
                    if (
                        isinstance(key, ast.Constant)
                        and isinstance(value, ast.Tuple)
                        and value.elts
                        and isinstance(value.elts[0], ast.Constant)
                        and value.elts[0].value in NOT_TEXT
                    ):
                        plain.add(key.value)
        told = self.method(module, node, "define_schema")
        if told is None:
            return plain
        # Some are made by functions and lists beside the class.
        own, beside = input_kinds(told[2]), input_kinds(module.tree)
        for name in set(own) | set(beside):
            if all(is_plain(kind) for kind in own.get(name, beside.get(name))):
                plain.add(name)
        return plain

    # What becomes of an input.

    def look(self):
        for node_id, module, node in self.nodes():
            plain = self.plain_inputs(module, node)
            entries = set(ENTRIES)
            function = self.attribute(module, node, "FUNCTION")
            if isinstance(function, str):
                entries.add(function)
            for entry in sorted(entries):
                found = self.method(module, node, entry)
                if found is None:
                    continue
                where, _, method = found
                names = parameters(method)
                given = {
                    name: {name} for name in names if name not in plain and name not in ("self", "cls", "s")
                }
                walk = Walk(self, node_id, module, node)
                walk.function(where, method, given, 0)
        return sorted(self.found.values(), key=lambda one: (one["file"], one["line"], one["class"], one["input"]))

    def note(self, node_id, source, kind, call, module, line):
        key = (node_id, source, kind)
        if key not in self.found:
            self.found[key] = {
                "class": node_id, "input": source, "kind": kind, "call": call, "file": module.shown, "line": line,
            }


def input_kinds(tree):
    """Kinds of the inputs that are made within, by name."""
    kinds = {}
    for item in ast.walk(tree):
        if (
            isinstance(item, ast.Call)
            and isinstance(item.func, ast.Attribute)
            and item.func.attr == "Input"
            and item.args
            and isinstance(item.args[0], ast.Constant)
        ):
            kinds.setdefault(item.args[0].value, set()).add(name_of(item.func.value).split(".")[-1])
    return kinds


def is_plain(kind):
    return kind.upper() in {word.replace("_", "") for word in NOT_TEXT} or kind.startswith(
        ("Image", "Mask", "Video", "Audio", "Latent", "Model", "File3D", "Mesh", "Splat", "Load3DCamera")
    )


def parameters(function):
    listed = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    listed += [one for one in (function.args.vararg, function.args.kwarg) if one]
    return [one.arg for one in listed]


class Walk:
    """One entry of one node."""

    def __init__(self, reader, node_id, module, node):
        self.reader, self.node_id = reader, node_id
        self.module, self.node = module, node
        self.results = {}

    def function(self, module, function, given, depth):
        """Follows tainted parameters; returns what its results are tainted by."""
        key = (id(function), tuple(sorted((name, tuple(sorted(taint))) for name, taint in given.items())))
        if key in self.results:
            return self.results[key]
        if depth > DEEPEST:
            return set().union(*given.values()) if given else set()
        self.results[key] = set()
        known = {name: set(taint) for name, taint in given.items()}
        results = set()
        # Twice: what is assigned below may be used above, in a loop.
        for is_last in (False, True):
            for statement in ast.walk(function):
                if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)):
                    if statement.value is not None:
                        taint = self.taint(statement.value, known, module, depth)
                        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                        for target in targets:
                            self.assign(target, taint, known, statement.value)
                elif isinstance(statement, (ast.For, ast.AsyncFor, ast.comprehension)):
                    self.assign(statement.target, self.taint(statement.iter, known, module, depth), known)
                elif isinstance(statement, ast.withitem) and statement.optional_vars is not None:
                    self.assign(statement.optional_vars, set(), known)
                elif isinstance(statement, ast.Return) and statement.value is not None:
                    results |= self.taint(statement.value, known, module, depth)
                if is_last and isinstance(statement, ast.Call):
                    self.call(statement, known, module, depth)
        self.results[key] = results
        return results

    def assign(self, target, taint, known, value=None):
        if isinstance(target, ast.Name):
            if taint:
                known.setdefault(target.id, set()).update(taint)
            elif value is not None and isinstance(value, ast.Call) and matches(name_of(value.func), CLEANERS):
                known.pop(target.id, None)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for one in target.elts:
                self.assign(one, taint, known)
        elif isinstance(target, ast.Starred):
            self.assign(target.value, taint, known)
        elif isinstance(target, (ast.Subscript, ast.Attribute)) and isinstance(target.value, ast.Name):
            if taint and target.value.id not in ("self", "cls"):
                known.setdefault(target.value.id, set()).update(taint)

    def taint(self, node, known, module, depth):
        if isinstance(node, ast.Name):
            return known.get(node.id, set())
        if isinstance(node, ast.Call):
            name = name_of(node.func)
            if matches(name, CLEANERS):
                return set()
            followed = self.follow(node, known, module, depth)
            if followed is not None:
                return followed
        if isinstance(node, ast.Compare) or isinstance(node, ast.Lambda):
            return set()
        if isinstance(node, ast.Attribute) and node.attr in ("shape", "size", "dtype", "device"):
            return set()
        taint = set()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr) or isinstance(child, (ast.keyword, ast.comprehension)):
                inner = child.value if isinstance(child, ast.keyword) else child
                inner = inner.iter if isinstance(inner, ast.comprehension) else inner
                taint |= self.taint(inner, known, module, depth)
        return taint

    def follow(self, node, known, module, depth):
        """Into a function of the folder; `None` if it is none of them or nothing tainted goes in."""
        name = name_of(node.func)
        parts = name.split(".")
        target = None
        if parts[0] in ("self", "cls", "s", self.node.name) and len(parts) == 2:
            found = self.reader.method(self.module, self.node, parts[1])
            target = (found[0], found[2]) if found else None
        elif len(parts) == 1 and parts[0] in module.functions:
            target = (module, module.functions[parts[0]])
        elif parts[0] in module.imports or len(parts) == 1:
            found = self.reader.by_name.get(parts[-1], [])
            origin = module.imports.get(parts[0])
            wanted = (origin[0] if origin else "").split(".")[-1]
            fitting = [one for one in found if os.path.basename(one[0].path)[:-3] == wanted]
            if fitting:
                target = fitting[0]
            elif origin and len(found) == 1:
                target = found[0]
        if target is None:
            return None
        names = [one for one in parameters(target[1]) if one not in ("self", "cls")]
        given = {}
        for name, argument in zip(names, node.args):
            inner = argument.value if isinstance(argument, ast.Starred) else argument
            taint = self.taint(inner, known, module, depth)
            if taint:
                given[name] = taint
        for keyword in node.keywords:
            taint = self.taint(keyword.value, known, module, depth)
            if taint:
                given[keyword.arg or (names[-1] if names else "kwargs")] = taint
        if not given:
            return set()
        return self.function(target[0], target[1], given, depth + 1)

    def call(self, node, known, module, depth):
        name = name_of(node.func)
        if matches(name, CLEANERS):
            return
        taint = set()
        kind = None
        last = name.split(".")[-1]
        if isinstance(node.func, ast.Attribute) and last in ON_PATHS:
            taint = self.taint(node.func.value, known, module, depth)
            kind = ON_PATHS[last]
        for one, names in KINDS:
            if taint:
                break
            if matches(name, names):
                kind = one
                # The path comes first; further ones are options, but for copies and names.
                arguments = node.args[:1] if last not in ("copy", "copyfile", "copy2", "move", "rename") else node.args
                if last in ("save", "torch.save", "save_file", "save_torch_file") and name.split(".")[0] in (
                    "torch", "torchaudio", "np", "safetensors", "comfy",
                ):
                    arguments = node.args[1:2] if name.startswith("torch.") else node.args[:2]
                values = list(arguments) + [keyword.value for keyword in node.keywords if keyword.arg in (
                    "file", "fp", "path", "filename", "filepath", "url", "repo_id", "folder",
                )]
                for value in values:
                    taint = taint | self.taint(value, known, module, depth)
        if kind == "reads" and last == "open" and len(node.args) > 1:
            mode = getattr(node.args[1], "value", "")
            if isinstance(mode, str) and set(mode) & set("wax+"):
                kind = "writes"
        for source in sorted(taint):
            self.reader.note(self.node_id, source, kind, name, module, node.lineno)
        if not taint:
            self.follow(node, known, module, depth)


def main():
    reader = Reader(sys.argv[1])
    json.dump({"nodes": reader.look(), "broken": reader.broken}, sys.stdout)


main()
