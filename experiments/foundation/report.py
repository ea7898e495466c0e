def write(folder, config, found):
    import json

    (folder / "report.json").write_text(json.dumps(found, indent=1))
    return folder / "report.json"
