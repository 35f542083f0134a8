"""transformers' own common tests, on our model. `transformers_common` downloads and runs them."""

import unittest

import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, random_attention_mask

from helpers.encoders import all_tasks_config
from modeling_ser_mtl import SerMtlConfig, SerMtlModel


class Tester:
    """What the common tests ask about the model."""

    batch_size, seq_length, encoder_seq_length = 4, 1024, 13
    hidden_size, num_hidden_layers, num_attention_heads, is_training = 32, 2, 2, True

    def get_config(self):
        """A small model of XLS-R's architecture."""
        config = all_tasks_config()
        # SpecAugment is the Trainer's; without it, the mask embedding would have no gradient.
        config.encoder_config.mask_time_prob = config.encoder_config.mask_feature_prob = 0.0
        return config

    def prepare_config_and_inputs_for_common(self):
        """The config, and two arguments of the forward pass."""
        size = [self.batch_size, self.seq_length]
        inputs = {"input_values": floats_tensor(size, scale=1.0), "attention_mask": random_attention_mask(size)}
        return self.get_config(), inputs


class SerMtlCommonTest(ModelTesterMixin, unittest.TestCase):
    """The common tests."""

    test_resize_embeddings = False
    has_attentions = True

    def setUp(self):
        self.all_model_classes = (SerMtlModel,)
        self.model_tester = Tester()
        self.config_tester = ConfigTester(self, config_class=SerMtlConfig, has_text_modality=False, embedding_dim=16)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        if not return_labels:
            return inputs
        labels = torch.zeros(Tester.batch_size, dtype=torch.long)
        others = {"gender_labels": labels, "style_labels": labels, "asr_labels": labels[:, None] + 1}
        return inputs | {"labels": labels} | others

    def test_config(self):
        self.config_tester.run_common_tests()
