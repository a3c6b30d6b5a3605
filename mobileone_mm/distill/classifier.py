"""A classifier that learns from teachers; imports mmpretrain, so it loads on demand only."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmpretrain.models.classifiers.image import ImageClassifier
from torch import Tensor

from ..errors import InputError
from ..registry import MODELS
from .losses import DistillLoss
from .normalization import Normalization
from .stored import TeacherOutputs, describe
from .teachers import Teachers, check_specs, fingerprint_at_hand


@MODELS.register_module()
class DistillClassifier(ImageClassifier):
    """mmpretrain's classifier with soft labels of frozen teachers (arXiv 2206.04040, table 10).

    The classifier is the student: its parameters and checkpoints are those of ``ImageClassifier``.
    Teachers are outside of the module. They are built and loaded when training begins
    (``init_weights``), never for a test, a prediction or a conversion. mmpretrain has nothing for
    this, and the distillers of mmrazor put the teacher into the checkpoint.

    Student and teachers see the same batch after all augmentation, mixed images included. Each
    teacher gets it in its own normalisation and size. Their probabilities are averaged. A wrong
    description of a teacher is an InputError; so are, when training begins, teachers or stored outputs
    that cannot be loaded or do not fit.

    Args:
        *args, **kwargs: Arguments of ``ImageClassifier``.
        teachers: One dict for each :class:`~mobileone_mm.distill.teachers.Teacher`.
        distill_loss: Arguments of :class:`~mobileone_mm.distill.losses.DistillLoss`; the default is
            soft labels alone, as in MEAL V2.
        outputs: Folder of stored outputs (``tools/misc/store_teacher_outputs.py``), which replace
            the teachers; empty or None runs the teachers.
    """

    def __init__(
        self,
        *args: Any,
        teachers: Sequence[Mapping[str, Any]],
        distill_loss: Mapping[str, Any] | None = None,
        outputs: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.teacher_specs = check_specs(teachers)
        if not isinstance(distill_loss, (Mapping, type(None))):
            raise InputError(
                f'model.distill_loss: got {distill_loss!r}; expected a dict with temperature and alpha'
            )
        if not isinstance(outputs, (str, os.PathLike, type(None))):
            raise InputError(f'model.outputs: got {outputs!r}; expected a folder')
        self.distill_loss: DistillLoss = MODELS.build(
            {'type': 'mobileone_mm.DistillLoss', **(distill_loss or {})}
        )
        self.outputs = outputs or None
        self.teachers: Teachers | None = None

    @staticmethod
    def student_config(cfg: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config of the student as a plain classifier of mmpretrain."""
        own = 'teachers', 'distill_loss', 'outputs'
        student = {key: value for key, value in cfg.items() if key not in own}
        return {**student, 'type': 'mmpretrain.ImageClassifier'}

    def init_weights(self) -> None:
        """Initialise the student, and prepare the teachers or their stored outputs."""
        super().init_weights()
        if self.outputs is None:
            self.load_teachers()
        else:
            self._check_outputs(TeacherOutputs(self.outputs, verify=True))

    def loss(self, inputs: Tensor, data_samples: list[Any]) -> dict[str, Tensor]:
        """Compute the losses of a batch of N x 3 x height x width with N samples.

        They are ``loss_soft``; with ``alpha`` below 1 also the losses of the head as ``loss_hard``; and
        ``teacher_agreement``, the share of images with the same first class.
        """
        logits = self.head(self.extract_feat(inputs))
        scores = self._scores(inputs, data_samples)
        if not isinstance(logits, Tensor) or logits.shape != scores.shape:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(
                f'model.teachers: give scores of shape {tuple(scores.shape)}, the student {shape}; '
                'both must have the same classes'
            )
        losses = {'loss_soft': self.distill_loss(logits, scores)}
        if self.distill_loss.alpha < 1:
            rest = 1 - self.distill_loss.alpha
            for name, value in self.head._get_loss(logits, data_samples).items():
                hard = name.replace('loss', 'loss_hard', 1)
                losses[hard] = value * rest if 'loss' in name else value
        same = logits.detach().argmax(1) == scores.argmax(1)
        losses['teacher_agreement'] = same.float().mean()
        return losses

    def load_teachers(self) -> Teachers:
        """Build and load the teachers at the first call; they run on the device of their inputs."""
        if self.teachers is None:
            normalization = Normalization.of(self.data_preprocessor)
            self.teachers = Teachers(self.teacher_specs, normalization, self.num_classes)
            for teacher in self.teachers.members:
                print_log(f'Teacher: {teacher.name}', 'current')
        return self.teachers

    def _check_outputs(self, stored: TeacherOutputs) -> None:
        stored.meta.check(
            stored.folder,
            num_classes=self.num_classes,
            temperature=self.distill_loss.temperature,
            teachers=[describe(spec) for spec in self.teacher_specs],
        )
        for index, spec in enumerate(self.teacher_specs if is_main_process() else ()):
            student = Normalization.of(self.data_preprocessor)
            found = fingerprint_at_hand(spec, student, self.num_classes)
            if found is None:
                print_log(
                    f'model.teachers.{index}: there is no local checkpoint, so only its name is '
                    'compared with that of the stored outputs',
                    'current',
                )
            elif found != stored.meta.fingerprints[index]:
                raise InputError(
                    f"outputs '{stored.folder}': were made with other weights, normalisation or size "
                    f'of model.teachers.{index}, which has the same name; store them again or use '
                    'that teacher'
                )
        if self.distill_loss.alpha < 1 and getattr(self.data_preprocessor, 'batch_augments', None):
            raise InputError(
                'model.outputs: batch augments mix stored outputs in the place of hard labels, so '
                'alpha must be 1; set distill_loss.alpha=1, or remove one of the two'
            )
        print_log(f'Stored outputs of teachers: {stored}', 'current')

    def _scores(self, inputs: Tensor, data_samples: list[Any]) -> Tensor:
        if self.outputs is None:
            return self.load_teachers().scores(inputs, self.distill_loss.temperature)
        # As `gt_score`, stored outputs are mixed with the images by batch augments of the host.
        if any('teacher_view' not in sample for sample in data_samples):
            raise InputError(
                'model.outputs: the training pipeline does not read them; use tools/train.py, or wrap '
                'the transforms in mobileone_mm.StoredView (docs/distillation.md)'
            )
        scores = torch.stack([sample.gt_score for sample in data_samples])
        if self.distill_loss.alpha < 1:
            for sample in data_samples:  # the head would take them for hard labels
                sample.pop('gt_score')
        return scores.to(inputs.device)

    @property
    def num_classes(self) -> int:
        """Classes of the student."""
        number = getattr(self.head, 'num_classes', None)
        if not isinstance(number, int):
            raise InputError(
                f'model.head: a {type(self.head).__name__} has no num_classes; use a head for one '
                'label for each image, such as LinearClsHead'
            )
        return number
