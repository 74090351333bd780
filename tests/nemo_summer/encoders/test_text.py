"""The text encoders: lengths, hostile captions, and T5 against transformers itself."""

import pytest
import torch

from nemo_summer.encoders.text import HashedWords, TextConfig, TextKind, waves

HOSTILE = {
    "empty": "",
    "blank": " \t\n ",
    "nul": "a\0b\0",
    "emoji": "a dog 🐕‍🦺 runs 🏃🏽",
    "right to left": "כלב רץ בחוף \u202eabc",
    "half a letter": "broken \ud800 surrogate",
    "one long word": "x" * 1_000_000,
    "many words": "a b " * 250_000,
    "blanks only": " " * 1_000_000,
}


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory):
    """A random T5 of 8 words with a tokenizer, written like a real checkpoint."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("t5")
    words = ["<pad>", "</s>", "<unk>", "a", "dog", "runs", "on", "sand"]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=8, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.1)
    T5EncoderModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def t5(t5_folder):
    return TextConfig(kind=TextKind.t5, path=str(t5_folder), width=24, max_tokens=16).build()


def test_the_same_words_give_the_same_vectors_in_every_build():
    first, second = (TextConfig(width=32).build().encode(["A red Ball"])[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, HashedWords(32, 64).encode(["a RED ball"])[0])


def test_a_known_word_keeps_its_vector_from_release_to_release():
    # stored numbers: datasets written by one version are read by the next
    vector = HashedWords(64, 8).encode(["dog"])[0][1]
    torch.testing.assert_close(vector[:3], torch.tensor([0.0729, 0.0809, 0.2535]), atol=1e-4, rtol=0)


def test_different_words_are_nearly_orthogonal_and_of_unit_norm():
    words = HashedWords(512, 128).encode([" ".join(f"w{k}" for k in range(100))])[0][1:] - 0.1 * waves(101, 512)[1:]
    products = words @ words.T
    torch.testing.assert_close(products.diagonal(), torch.ones(100))
    # random directions in 512 dimensions: products of deviation 1 / sqrt(512) = 0.044
    assert float((products - torch.eye(100)).std()) == pytest.approx(512**-0.5, rel=0.1)


def test_the_order_of_words_can_be_told_from_the_vectors_of_a_bag():
    one, other = HashedWords(64, 8).encode(["dog bites man", "man bites dog"])
    assert not torch.allclose(one.sort(0).values, other.sort(0).values, atol=1e-4)


def test_a_caption_cannot_fake_the_begin_token():
    begin, faked = HashedWords(64, 8).encode(["", "<begin>"])
    assert len(begin) == 1 and len(faked) == 4
    assert torch.equal(begin[0], faked[0])


def test_an_odd_width_works():
    assert HashedWords(7, 8).encode(["two words"])[0].shape == (3, 7)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_embedded_encoder_survives_hostile_captions_and_cuts_them(name):
    (out,) = HashedWords(64, 16).encode([HOSTILE[name]])
    assert 1 <= len(out) <= 16 and out.shape[1] == 64 and out.isfinite().all()


@pytest.mark.parametrize("name", HOSTILE)
def test_t5_survives_hostile_captions_and_cuts_them(t5, name):
    (out,) = t5.encode([HOSTILE[name]])
    assert 1 <= len(out) <= 16 and out.shape[1] == 24 and out.isfinite().all()


def test_t5_gives_the_hidden_states_of_transformers_at_the_captions_true_length(t5, t5_folder):
    from transformers import AutoTokenizer, T5EncoderModel

    tokenizer, model = AutoTokenizer.from_pretrained(t5_folder), T5EncoderModel.from_pretrained(t5_folder).eval()
    captions = ["a dog", "a dog runs on sand", "", "sand"]
    for caption, mine in zip(captions, t5.encode(captions), strict=True):
        with torch.no_grad():
            alone = model(**tokenizer(caption, return_tensors="pt")).last_hidden_state[0]
        torch.testing.assert_close(mine, alone, atol=1e-5, rtol=1e-4)


def test_t5_encodes_more_captions_than_fit_one_batch_in_their_order(t5):
    captions = ["a " * (k % 5) + "dog" for k in range(70)]
    together = t5.encode(captions)
    assert [len(out) for out in together] == [k % 5 + 2 for k in range(70)]
    torch.testing.assert_close(together[69], t5.encode([captions[69]])[0], atol=1e-5, rtol=1e-4)


def test_a_t5_of_another_width_is_refused_with_the_knob(t5_folder):
    with pytest.raises(ValueError, match=r"set text\.width=24"):
        TextConfig(kind=TextKind.t5, path=str(t5_folder), width=64).build()


def test_missing_or_foreign_weights_are_refused_with_the_path(tmp_path):
    with pytest.raises(ValueError, match=r"set text\.path"):
        TextConfig(kind=TextKind.t5).build()
    with pytest.raises(ValueError, match=str(tmp_path)):
        TextConfig(kind=TextKind.t5, path=str(tmp_path)).build()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="'bert' model"):
        TextConfig(kind=TextKind.t5, path=str(tmp_path)).build()


def test_a_checkpoint_with_code_of_its_own_is_not_run(tmp_path, t5_folder):
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    (tmp_path / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}'
    )
    with pytest.raises(ValueError, match=r"text\.path"):
        TextConfig(kind=TextKind.t5, path=str(tmp_path)).build()
