"""Rules that reach further than the measured cases: own cases, and sweeps over the whole API."""

import json
import random
import sys
from pathlib import Path

import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
sys.path.insert(0, str(HOST))

from tomoseg_host import conformance, environment  # noqa: E402

environment.start()

from tomoseg_host.bridge import api, instance, strictness  # noqa: E402

#: Classes that need an application, a display or a document of their own, or run their own thread.
NOT_MADE = {"QApplication", "QCoreApplication", "QGuiApplication", "QSvgRenderer", "QWindow",
            "QSystemTrayIcon", "QRasterWindow", "QOpenGLContext", "QOffscreenSurface",
            "QThread", "QLocalServer", "ctkTestApplication"}  # fmt: skip


def constructible() -> list[str]:
    """Classes that can be made without arguments, by name."""
    names = []
    for name in api.classes():
        texts = api.info(name).constructors()
        optional = any(not text or text.split(",")[0].endswith("=") for text in texts)
        if optional and "__" not in name and name not in NOT_MADE:
            names.append(name)
    return names


def make(name: str):
    """An instance, or None where the host says that it lacks the class."""
    try:
        return instance.facade_class(name)()
    except strictness.HostLacks:
        return None


@pytest.mark.parametrize("faithful", [False, True])
def test_own_cases_pass(faithful, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    groups = json.loads((HOST / "cases" / "rules.json").read_text(encoding="utf-8"))
    with strictness.faithful(faithful):
        results = conformance.run_groups(groups)
    assert [result.line() for result in results if not result.passed] == []


def test_nearly_every_constructible_class_can_be_made():
    names = [name for name in constructible() if name.startswith(("ctk", "qMRML"))]
    missing = [name for name in names if make(name) is None]
    # What is left out plays and translates recorded events, or is no QObject.
    assert len(names) > 150
    others = [name for name in missing if not name.endswith(("Player", "Translator"))]
    assert len(others) < 15, others


def test_properties_are_values_of_their_type_and_never_functions():
    wanted = {"bool": bool, "int": int, "double": float, "QString": str, "QStringList": tuple}
    wrong, seen = [], 0
    for name in constructible():
        if not name.startswith(("ctk", "qMRML", "qSlicer", "QWidget", "QComboBox", "QLineEdit")):
            continue
        item = make(name)
        if item is None:
            continue
        for prop in api.info(name).properties().values():
            if prop.owner != name:
                continue
            try:
                value = getattr(item, prop.name)
            except strictness.HostLacks:
                continue
            seen += 1
            if callable(value) or not isinstance(value, wanted.get(prop.type, object)):
                wrong.append((name, prop.name, value))
    assert seen > 500
    assert wrong == []


def test_read_only_properties_cannot_be_written_and_written_ones_come_back():
    wrong = []
    for name in constructible():
        if not name.startswith(("ctk", "qMRML")):
            continue
        item = make(name)
        for prop in api.info(name).properties().values() if item is not None else ():
            if prop.owner != name or prop.type not in ("bool", "QString"):
                continue
            before = getattr(item, prop.name)
            if not prop.writable:
                with pytest.raises(AttributeError):
                    setattr(item, prop.name, before)
                continue
            setattr(item, prop.name, before)
            if getattr(item, prop.name) != before:
                wrong.append((name, prop.name))
    assert wrong == []


def test_plain_cpp_members_and_protected_slots_are_not_there():
    accepted = []
    for name, raw in api.classes().items():
        info = api.info(name)
        for key in ("cpp", "prot"):
            for member in raw.get(key, []):
                # A name that a base class offers as a function stays ("inh" in the API).
                if info.member(member) is None and hasattr(instance.facade_class(name), member):
                    accepted.append((name, member))
    assert accepted == []


def test_names_hidden_by_a_property_cannot_be_called():
    accepted = []
    for name in constructible():
        hidden = api.classes()[name].get("dead", [])
        item = make(name) if hidden else None
        for member in hidden if item is not None else ():
            try:
                if callable(getattr(item, member)):
                    accepted.append((name, member))
            except (strictness.HostLacks, NotImplementedError):
                continue
    assert accepted == []


def test_every_signal_of_the_api_can_be_connected_and_no_other():
    failed = []
    for name in constructible():
        if not name.startswith(("ctk", "qMRML", "QW", "QC", "QL", "QS", "QP", "QT")):
            continue
        item = make(name)
        if item is None or not api.info(name).is_qobject:
            continue
        for text in api.info(name).own("sig"):
            if item.connect(text, print) is not True:
                failed.append((name, text))
        assert item.connect("noSuchSignal(int)", print) is False
    assert failed == []


def test_slots_refuse_wrong_numbers_of_arguments():
    random.seed(5)
    accepted = []
    for name in random.sample([each for each in constructible() if each.startswith("Q")], 60):
        item = make(name)
        if item is None:
            continue
        for overload in list(api.info(name).overloads("setObjectName")):
            arguments = [None] * (len(overload.signature.arguments) + 4)
            try:
                item.setObjectName(*arguments)
                accepted.append(name)
            except ValueError:
                pass
    assert accepted == []


def test_enum_values_are_numbers_of_their_own_type():
    missing, seen = [], 0
    for name in api.classes():
        cls = instance.facade_class(name)
        for enum, values in api.info(name).enums().items():
            assert issubclass(getattr(cls, enum), int) or api.info(name).member(enum).kind != "enum"
            for key in values:
                try:
                    value = getattr(cls, key)
                except AttributeError:
                    missing.append(f"{name}.{key}")
                    continue
                seen += isinstance(value, int)
    assert seen > 3000
    # What Qt 6 dropped and no panel asks for: scripts of QLocale, a few of QStyle.
    assert len(missing) < 80, missing
