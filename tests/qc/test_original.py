import warnings

import numpy as np
import pytest

from qcjax.labels import LV, RV
from qcjax.qc import original as qc

INF = np.inf


class Oracle:
    """The running record as it is described: histories of patients who come one after another."""

    def __init__(self):
        self.history = {}  # patient -> (list of pDC, list of pHD), in the order of first appearance
        self.kept = {}  # patient -> {"dc", "hd", "both": evaluation}
        self.evaluation = 0

    def limits(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcs = [max(dc) for dc, _ in self.history.values()]
            hds = [min(hd) for _, hd in self.history.values()]
            spread_dc = np.quantile(dcs, 0.75) - np.quantile(dcs, 0.25)
            spread_hd = np.quantile(hds, 0.75) - np.quantile(hds, 0.25)
            return np.quantile(dcs, 0.25) - 1.5 * spread_dc, np.quantile(hds, 0.75) + 1.5 * spread_hd

    def evaluate(self, measures):
        for patient, (dc, hd) in enumerate(measures):
            dcs, hds = self.history.setdefault(patient, ([], []))
            dcs.append(dc)
            hds.append(hd)
            kept = self.kept.setdefault(patient, {"dc": -1, "hd": -1, "both": -1})
            if dc == max(dcs):
                kept["dc"] = self.evaluation
                if hd < self.limits()[1]:
                    kept["both"] = self.evaluation
            if hd == min(hds):
                kept["hd"] = self.evaluation
        self.evaluation += 1

    def anomalies(self):
        low, up = self.limits()
        return [max(dcs) < low or min(hds) > up for dcs, hds in self.history.values()]


def run(history):
    """Both over a history of evaluations, compared after each of them."""
    oracle, record = Oracle(), qc.empty_record(len(history[0]))
    for number, measures in enumerate(history):
        oracle.evaluate(measures)
        pdc, phd = np.array(measures, float).T
        record, take_dc, take_hd, take_both = qc.update(record, pdc, phd)
        kept = {key: np.array([k[key] for k in oracle.kept.values()]) for key in ("dc", "hd", "both")}
        np.testing.assert_array_equal(record.dc_from, kept["dc"])
        np.testing.assert_array_equal(record.hd_from, kept["hd"])
        np.testing.assert_array_equal(record.ensemble_from, kept["both"])
        np.testing.assert_array_equal(take_dc, kept["dc"] == number)
        np.testing.assert_array_equal(take_hd, kept["hd"] == number)
        np.testing.assert_array_equal(take_both, kept["both"] == number)
        np.testing.assert_array_equal(qc.thresholds(record), oracle.limits())
        np.testing.assert_array_equal(qc.out_of_distribution(record), oracle.anomalies())
    return record


def random_history(seed, cases, evaluations, p_infinite):
    """Coarse values, so that ties are frequent."""
    rng = np.random.default_rng(seed)
    pdc, phd = rng.integers(3, 10, (2, evaluations, cases)).astype(float)
    absent = rng.random((evaluations, cases)) < p_infinite
    pdc, phd = np.where(absent, 0, pdc / 10), np.where(absent, INF, phd * 2)
    return [list(zip(*rows, strict=True)) for rows in zip(pdc.tolist(), phd.tolist(), strict=True)]


@pytest.mark.parametrize("p_infinite", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("cases", [1, 2, 3, 5, 12])
def test_random_histories(cases, p_infinite):
    for seed in range(4):
        run(random_history(seed, cases, 6, p_infinite))


def test_one_case_is_never_below_its_own_first_threshold():
    record = run([[(0.8, 5.0)], [(0.9, 4.0)], [(0.9, 4.0)], [(0.95, 3.0)]])
    assert record.ensemble_from[0] == -1  # the threshold is its own best pHD, and nothing is below itself
    assert qc.select(record) == (3, 3)
    assert not qc.out_of_distribution(record).any()


def test_ties_go_to_the_later_evaluation():
    record = run([[(0.8, 5.0), (0.8, 9.0)], [(0.8, 5.0), (0.7, 9.0)]])
    np.testing.assert_array_equal(record.dc_from, [1, 0])
    np.testing.assert_array_equal(record.hd_from, [1, 1])


def test_the_threshold_knows_the_cases_before_and_the_old_measures_of_those_after():
    # in the first evaluation the first case is alone (up = 9), and 9 isn't below 9; the second sees 9 and 5
    record = run([[(0.8, 9.0), (0.8, 5.0)]])
    np.testing.assert_array_equal(record.ensemble_from, [-1, 0])
    later = record._replace(dc_from=record.dc_from + 3, hd_from=record.hd_from + 4)
    chosen = qc.select(later)  # the first evaluation counts as any other
    assert chosen.first.tolist() == [3, 0] and chosen.second.tolist() == [4, 0]
    # the same cases the other way round
    record = run([[(0.8, 5.0), (0.8, 9.0)]])
    np.testing.assert_array_equal(record.ensemble_from, [-1, 0])
    # second evaluation: the first case meets the old 100 of the second
    record = run([[(0.8, 5.0), (0.1, 100.0)], [(0.9, 60.0), (0.9, 5.0)]])
    assert record.ensemble_from[0] == 1
    # had the second come first, its new 5 would have set the threshold
    record = run([[(0.1, 100.0), (0.8, 5.0)], [(0.9, 5.0), (0.9, 60.0)]])
    assert record.ensemble_from[1] == 0


def test_an_ensemble_prediction_outlives_a_better_one_that_fails():
    record = run(
        [[(0.5, 5.0), (0.8, 6.0), (0.8, 7.0)], [(0.6, 5.0), (0.7, 9.0), (0.7, 9.0)]]
        + [[(0.9, 80.0), (0.7, 9.0), (0.7, 9.0)]]
    )
    assert (record.dc_from[0], record.ensemble_from[0]) == (2, 1)
    chosen = qc.select(record)
    assert (chosen.first[0], chosen.second[0]) == (1, 1)


def test_without_an_ensemble_the_two_best_are_averaged():
    record = run([[(0.8, 5.0)], [(0.9, 7.0)]])
    assert record.ensemble_from[0] == -1
    assert (qc.select(record).first[0], qc.select(record).second[0]) == (1, 0)


def test_infinite_distances_enter_the_quartiles():
    all_absent = run([[(0.0, INF)] * 4])
    assert np.isnan(qc.thresholds(all_absent).up)
    assert not qc.out_of_distribution(all_absent).any()  # and so no threshold is left
    np.testing.assert_array_equal(qc.select(all_absent), np.zeros((2, 4)))
    some_absent = run([[(0.8, 4.0), (0.0, INF), (0.9, 5.0), (0.8, 6.0), (0.8, 5.0), (0.9, 5.0)]])
    assert np.isfinite(qc.thresholds(some_absent).up)
    np.testing.assert_array_equal(np.flatnonzero(qc.out_of_distribution(some_absent)), [1])


def test_pseudo_measures_are_in_voxels():
    mask, rebuilt = np.zeros((1, 9, 9), int), np.zeros((1, 9, 9), int)
    mask[0, 1:8, 1:8], rebuilt[0, 1:8, 1:8] = RV.id, RV.id
    rebuilt[0, 2:7, 2:7] = 0
    pdc, phd = qc.pseudo_measures(mask, rebuilt, (RV, LV))
    np.testing.assert_allclose(pdc, [2 * 24 / (49 + 24), 0])
    np.testing.assert_array_equal(phd, [3, INF])  # from the centre: all of a single slice is surface


def test_what_makes_no_sense_is_refused():
    record = qc.empty_record(2)
    with pytest.raises(ValueError, match="phd: NaN"):
        qc.update(record, np.array([0.0, 0.5]), np.array([np.nan, 1.0]))
    with pytest.raises(ValueError, match="pdc: shape"):
        qc.update(record, np.array([0.5]), np.array([1.0]))
    with pytest.raises(ValueError, match="0 evaluations"):
        qc.thresholds(record)
    with pytest.raises(ValueError, match="0 evaluations"):
        qc.out_of_distribution(record)


def test_what_improves_is_what_an_update_takes():
    rng = np.random.default_rng(3)
    record = qc.empty_record(4)
    for _ in range(6):
        pdc = rng.choice([0.0, 0.6, 0.7, 0.8], 4)
        phd = rng.choice([3.0, 5.0, np.inf], 4)
        found = [qc.improves(record, i, float(pdc[i]), float(phd[i])) for i in range(4)]
        result = qc.update(record, pdc, phd)
        assert found == (result.take_dc | result.take_hd | result.take_ensemble).tolist()
        record = result.record
