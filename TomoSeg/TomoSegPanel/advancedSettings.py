"""The box Advanced of the section Method: the card's settings of a method, and other ones."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from TomoSegPanel.modelCards import MethodDefaults
from TomoSegPanel.parameters import RunSettings
from TomoSegPanel.section import Section, fillCombo, selectData, signalsBlocked

_SAME = 0.005  # the spin boxes show two decimals


class AdvancedSettings(Section):
    """Shows what the card says, or what the user has chosen in place of it."""

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        ui = self.ui
        fillCombo(
            ui.camCombo,
            [
                ("cam", _("CAM")),
                ("gradcam", _("GradCAM")),
                ("gradcam++", _("GradCAM++")),
                ("layercam", _("LayerCAM")),
            ],
            "cam",
        )
        fillCombo(
            ui.windowCombo,
            [("hann", _("Hann")), ("cosine", _("Cosine")), ("none", _("None"))],
            "hann",
        )
        ui.camCombo.connect("currentIndexChanged(int)", self._chooseCam)
        ui.windowCombo.connect("currentIndexChanged(int)", self._chooseWindow)
        ui.rectifiedCheckBox.connect("toggled(bool)", self._chooseRectified)
        ui.filterOrderSpinBox.connect("valueChanged(double)", self._chooseFilterOrder)
        ui.cutoffSpinBox.connect("valueChanged(double)", self._chooseCutoff)
        ui.cardValuesButton.connect("clicked()", self.useCardValues)

    def refresh(self) -> None:
        """Of `Section`."""
        card, ui = self.panel.card, self.ui
        ui.advancedBox.setEnabled(card is not None)
        if card is None:
            return
        settings = RunSettings.of(self.parameters, card)
        defaults = card.settings(settings.usedMethod)
        usesCam = settings.usedMethod != "tonno"
        filters = settings.usedMethod in ("tonno", "tomographic-cam")
        selectData(ui.camCombo, settings.camKind)
        selectData(ui.windowCombo, settings.window or defaults.window)
        with signalsBlocked(ui.rectifiedCheckBox):
            ui.rectifiedCheckBox.setChecked(_either(settings.rectified, defaults.rectified))
        for box, value in (
            (ui.filterOrderSpinBox, _either(settings.filterOrder, defaults.filterOrder)),
            (ui.cutoffSpinBox, _either(settings.cutoff, defaults.cutoff)),
        ):
            if abs(box.value - value) >= _SAME:  # else what the user is typing is left alone
                with signalsBlocked(box):
                    box.value = value
        for widget, on in (
            (ui.camCombo, usesCam),
            (ui.rectifiedCheckBox, usesCam),
            (ui.filterOrderSpinBox, filters),
            (ui.cutoffSpinBox, filters),
            (ui.windowCombo, filters),
        ):
            widget.setEnabled(on)
        changes = changesFromCard(settings, defaults)
        ui.cardValuesButton.setEnabled(bool(changes))
        ui.advancedNote.setText(
            _("Changed: {changes}.").format(changes="; ".join(changes))
            if changes
            else _("All as the model's card says for this method.")
        )

    def useCardValues(self) -> None:
        """Set everything to what the card says."""
        parameters = self.parameters
        if parameters is None:
            return
        with slicer.util.NodeModify(parameters.parameterNode):
            parameters.camKind = "cam"
            parameters.filterOrder = parameters.cutoff = -1.0
            parameters.window = parameters.rectified = ""

    def _defaults(self) -> MethodDefaults | None:
        card = self.panel.card
        if self.parameters is None or card is None:
            return None
        return card.settings(RunSettings.of(self.parameters, card).usedMethod)

    def _chooseCam(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.camKind = self.ui.camCombo.itemData(index)

    def _chooseWindow(self, index: int) -> None:
        defaults = self._defaults()
        if defaults is not None:
            window = self.ui.windowCombo.itemData(index)
            self.parameters.window = "" if window == defaults.window else window

    def _chooseRectified(self, on: bool) -> None:
        defaults = self._defaults()
        if defaults is not None:
            self.parameters.rectified = "" if on == defaults.rectified else ("yes" if on else "no")

    def _chooseFilterOrder(self, value: float) -> None:
        defaults = self._defaults()
        if defaults is not None:
            same = abs(value - defaults.filterOrder) < _SAME
            self.parameters.filterOrder = -1.0 if same else value

    def _chooseCutoff(self, value: float) -> None:
        defaults = self._defaults()
        if defaults is not None:
            same = abs(value - defaults.cutoff) < _SAME
            self.parameters.cutoff = -1.0 if same else value


def changesFromCard(settings: RunSettings, defaults: MethodDefaults) -> list[str]:
    """What is not as the card says, each in words, as far as it matters to the method."""
    fields: list[tuple[str, Any, Any]] = []
    if settings.usedMethod in ("tonno", "tomographic-cam"):
        fields += [
            (_("filter order"), settings.filterOrder, defaults.filterOrder),
            (_("cutoff"), settings.cutoff, defaults.cutoff),
            (_("window"), settings.window, defaults.window),
        ]
    if settings.usedMethod != "tonno":
        words = {True: _("yes"), False: _("no"), None: None}
        fields += [
            (_("positive activation only"), words[settings.rectified], words[defaults.rectified]),
            (_("activation maps"), None if settings.camKind == "cam" else settings.camKind, "cam"),
        ]
    return [
        _("{setting} {value} (card: {default})").format(
            setting=name, value=_short(value), default=_short(default)
        )
        for name, value, default in fields
        if value is not None
    ]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _either(value: Any, default: Any) -> Any:
    return default if value is None else value
