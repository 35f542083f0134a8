"""Trees of described corpora: the names and tables of the real ones, whole, and a millisecond of sound in each file."""

import io
import json
import os
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import soundfile


def write_names(root: Path, names: Iterable[str]) -> Path:
    """Write a file of a millisecond under each name; all are links to one for each suffix."""
    root.mkdir(parents=True, exist_ok=True)
    first: dict[str, Path] = {}
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix.lower()
        if suffix in first:
            os.link(first[suffix], path)
        else:
            first[suffix] = path
            path.write_bytes(_sound(suffix))
    return root


def _sound(suffix: str) -> bytes:
    kind = {".wav": "WAV", ".flac": "FLAC"}.get(suffix)
    if kind is None:
        return b"no sound"
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(16), 16000, format=kind)
    return buffer.getvalue()


def ravdess(channels: str = "speech song") -> Iterator[str]:
    """Neutral and strong does not exist; nor do, of song, actor 18, disgust and surprise."""
    for channel, emotion, intensity, text, take, actor in product(
        channels.split(), range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)
    ):
        if (emotion == 1 and intensity == 2) or (channel == "song" and (emotion > 6 or actor == 18)):
            continue
        kind = {"speech": 1, "song": 2}[channel]
        name = f"03-{kind:02}-{emotion:02}-{intensity:02}-{text:02}-{take:02}-{actor:02}.wav"
        yield f"Audio_{channel.title()}_Actors_01-24/Actor_{actor:02}/{name}"


def crema_d() -> Iterator[str]:
    """91 actors, 12 sentences, six emotions; one sentence in three levels. 82 clips beside the grid are not there."""
    texts = ("DFA", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
    for emotion in ("NEU", "ANG", "DIS", "FEA", "HAP", "SAD"):
        names = [f"{actor}_{text}_{emotion}_XX" for actor, text in product(range(1001, 1092), texts)]
        levels = ["XX"] if emotion == "NEU" else ["LO", "MD", "HI"]
        names += [f"{actor}_IEO_{emotion}_{level}" for actor, level in product(range(1001, 1092), levels)]
        number = 1087 if emotion == "NEU" else 1271
        yield from (f"AudioWAV/{name}.wav" for name in names[len(names) - number :])


def emo_db() -> Iterator[str]:
    """The counts of each letter, dealt over speakers, texts and versions."""
    speakers = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
    texts = ("a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10")
    for letter, count in {"W": 127, "L": 81, "N": 79, "F": 71, "A": 69, "T": 62, "E": 46}.items():
        places = [(speaker, text, version) for version in "ab" for text in texts for speaker in speakers]
        yield from (f"wav/{speaker}{text}{letter}{version}.wav" for speaker, text, version in places[:count])


def tess() -> Iterator[str]:
    """As on Kaggle: spellings of the folders vary, one name lacks a letter."""
    for speaker, emotion in product(("OAF", "YAF"), ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad")):
        folder = {"OAFps": "OAF_Pleasant_surprise", "OAFfear": "OAF_Fear"}.get(
            f"{speaker}{emotion}", f"{speaker}_{emotion}"
        )
        for number in range(200):
            word = "bite" if number == 0 else "b" + chr(97 + number // 26) + chr(97 + number % 26)
            start = "OA" if (speaker, emotion, number) == ("OAF", "neutral", 0) else speaker
            yield f"{folder}/{start}_{word}_{emotion}.wav"


def savee() -> Iterator[str]:
    """Four men."""
    for speaker, (letters, count) in product(
        ("DC", "JE", "JK", "KL"), {"a": 15, "d": 15, "f": 15, "h": 15, "n": 30, "sa": 15, "su": 15}.items()
    ):
        yield from (f"AudioData/{speaker}/{letters}{number:02}.wav" for number in range(1, count + 1))


def nemo(root: Path) -> Path:
    """With its table, in which the speakers have blanks in front."""
    speakers = ("KS0", "WR0", "TP0", "SM0", "MP0", "KD0", "IC0", "EB0", "MK0")
    counts = {"neutral": 809, "sadness": 769, "anger": 749, "happiness": 749, "fear": 736, "surprised": 669}
    rows = ["file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage"]
    for emotion, count in counts.items():
        for speaker, number in [(speaker, number) for number in range(1, 91) for speaker in speakers][:count]:
            name = f"{speaker}_{emotion}_{number}.wav"
            rows.append(f"{name}\t{emotion}\tZdanie {number}, ż.\tzdanie\t        {speaker}\tfemale\t30")
    write_names(root, (f"samples/{row.split()[0]}" for row in rows[1:]))
    (root / "data.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def msp_improv(root: Path) -> Path:
    """Labels of the four classes and some others, in the lines of a text file between those of the raters."""
    counts = {"N": 3477, "H": 2644, "S": 885, "A": 792, "O": 85, "X": 555}
    letters = [letter for letter, count in counts.items() for _ in range(count)]
    lines, names = [], []
    for number, letter in enumerate(letters):
        session, sex, kind = number % 6 + 1, "FM"[number // 6 % 2], "PRST"[number % 4]
        scene = f"S{number // 24 % 20 + 1:02}{'AHSN'[number % 4]}"
        name = f"IMPROV-{scene}-{sex}{session:02}-{kind}-FM{number:04}"
        names.append(f"session{session}/{scene}/{kind}/MSP-{name}.wav")
        lines += [f"UTD-{name}.avi; {letter}; A:2.500000; V:3.250000; D:4.000000 ; N:3.000000;"]
        lines += [
            "117; Happy; Excited, Happy,; A:2.0; V:5.0; D:3.0; N:4.0;",
            "118; Sad; Sad,; A:NaN; V:1.0; D:NaN; N:2;",
            "",
        ]
    write_names(root, names)
    (root / "Evalution.txt").write_text("\n".join(lines))
    return root


def iemocap_csv(root: Path) -> Path:
    """10,039 rows; the column gender is that of the wearer of the markers, not the speaker's."""
    counts = {"neu": 1708, "hap": 595, "exc": 1041, "ang": 1103, "sad": 1084, "xxx": 2507, "fru": 1849}
    counts |= {"sur": 107, "fea": 40, "oth": 3, "dis": 2}
    rows = ["session,method,gender,emotion,n_annotators,agreement,path"]
    for number, code in enumerate(code for code, count in counts.items() for _ in range(count)):
        session, wearer, speaker = number % 5 + 1, "FM"[number // 5 % 2], "MF"[number // 10 % 2]
        method = ("impro", "script")[number // 20 % 2]
        dialog = f"Ses{session:02}{wearer}_{method}{number // 500:02}" + ("_1b" if method == "script" else "")
        path = f"Session{session}/sentences/wav/{dialog}/{dialog}_{speaker}{number % 500:03}.wav"
        rows.append(f"{session},{method},{wearer},{code},3,2,{path}")
    write_names(root, (row.rpartition(",")[2] for row in rows[1:]))
    (root / "iemocap_full_dataset.csv").write_text("\n".join(rows) + "\n")
    return root


def meld(root: Path, videos: bool = False) -> Path:
    """Two dialogs in each part, with the same numbers; one row has no clip, and one clip no row."""
    folders = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    head = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    names = []
    for part, folder in folders.items():
        rows = [head]
        for dialog, utterance in product(range(2), range(3)):
            speaker = ("Joey", "Monica", part)[utterance]
            emotion = ("joy", "anger", "neutral")[utterance]
            text = f"“{part}, {dialog}\x92s {utterance}”"
            rows.append(f'1,"{text}",{speaker},{emotion},neutral,{dialog},{utterance},1,2,"00:00:1,5","00:00:2,5"')
            names.append(f"{folder}/dia{dialog}_utt{utterance}.{'mp4' if videos else 'wav'}")
        (root / f"{part}_sent_emo.csv").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{part}_sent_emo.csv").write_text("\r\n".join(rows) + "\r\n", encoding="utf-8")
    names.remove(names[-1])
    write_names(root, [*names, f"{folders['test']}/dia9_utt9.wav", f"{folders['test']}/final_videos_testdia0_utt0.wav"])
    return root


def esd(root: Path, parts: bool = True) -> Path:
    """Two speakers, two sentences a part; the texts in the encodings of the corpus."""
    emotions = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
    for speaker, encoding, text in (
        ("0001", "gb18030", "你好"),
        ("0011", "cp1252", "It’s"),
        ("0013", "utf-16", "They"),
    ):
        lines, names = [], []
        for block, emotion in enumerate(emotions):
            for number, part in enumerate(("evaluation", "test", "train"), start=350 * block + 1):
                folder = f"{speaker}/{emotion}/{part}" if parts else f"{speaker}/{emotion}"
                names.append(f"{folder}/{speaker}_{number:06}.wav")
                lines.append(f"{speaker}_{number:06}{chr(9) if number % 2 else '  '}{text} {number}.{chr(9)}{emotion}")
        write_names(root, names)
        (root / speaker / f"{speaker}.txt").write_text("\r\n".join(lines), encoding=encoding)
    return root


def msp_podcast(root: Path) -> Path:
    """A few rows of each part, one transcript."""
    rows = [
        "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set",
        "MSP-PODCAST_0001_0001.wav,A,5.2,2.1,4.4,Unknown,Unknown,Train",
        "MSP-PODCAST_0001_0002_0001.wav,H,4.2,6.1,4.4,127,Female,Train",
        "MSP-PODCAST_0002_0001.wav,N,4.0,4.0,4.0,128,Male,Development",
        "MSP-PODCAST_0003_0001.wav,U,4.0,4.0,4.0,127,Female,Test1",
        "MSP-PODCAST_0003_0002.wav,H,4.0,4.0,4.0,130,Male,Test2",
        "MSP-PODCAST_0003_0003.wav,X,4.0,4.0,4.0,130,Male,Test1",
        "MSP-PODCAST_0003_0004.wav,O,4.0,4.0,4.0,130,Male,Train",
    ]
    write_names(root, (f"Audios/{row.split(',')[0]}" for row in rows[1:]))
    for folder in ("Labels", "Transcripts"):
        (root / folder).mkdir()
    (root / "Labels" / "labels_concensus.csv").write_text("\n".join(rows) + "\n")
    (root / "Transcripts" / "MSP-PODCAST_0001_0001.txt").write_text("I can't believe it.\n")
    return root


def emobox(root: Path, folds: int, valid: bool = False) -> Path:
    """Twelve utterances of a corpus `made`, in folds; a single one holds a quarter."""
    rows = [
        {
            "key": f"made-{n}",
            "dataset": "made",
            "wav": f"downloads/made/{n % 3}/{n:02}.wav",
            "emo": ("sad", "angry")[n % 2],
        }
        for n in range(12)
    ]
    write_names(root, (row["wav"] for row in rows))
    folder = root / "data" / "made"
    folder.mkdir(parents=True)
    (folder / "made.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for fold in range(1, folds + 1):
        (folder / f"fold_{fold}").mkdir()
        test = [row for n, row in enumerate(rows) if n % max(folds, 4) == fold - 1]
        dev = [row for n, row in enumerate(rows) if valid and n % 4 == 3]
        train = [row for row in rows if row not in test and row not in dev]
        for part, chosen in {"test": test, "train": train, "valid": dev}.items():
            if chosen:
                file = folder / f"fold_{fold}" / f"made_{part}_fold_{fold}.jsonl"
                file.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return root
