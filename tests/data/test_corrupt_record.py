import pickle

from torch._utils import ExceptionWrapper

from pixelclip.data.corrupt_record import BrokenRecordError


def test_the_kind_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(BrokenRecordError("cut off", "image")))
    assert (str(error), error.kind) == ("cut off", "image")


def test_torch_can_raise_it_again_out_of_a_worker() -> None:
    try:
        raise BrokenRecordError("cut off", "image")
    except BrokenRecordError:
        wrapper = ExceptionWrapper(where="in a worker")
    try:
        wrapper.reraise()
    except BrokenRecordError as error:
        assert "cut off" in str(error)
