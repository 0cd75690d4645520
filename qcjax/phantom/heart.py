"""The heart as signed distances in its own frame: one continuous shape, from which any slice can be cut.

Heart frame, in mm: w runs along the long axis from the mitral valve at end of diastole (0) to the apex, u from the
septum to the lateral wall, v from the anterior to the inferior wall; the long axis is u = v = 0.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from qcjax.labels import BACKGROUND, LV, MYO, RV
from qcjax.phantom.fields import Points, Wobble, capsule, ellipsoid, smooth_max, smooth_min, smoothstep


@dataclass(frozen=True)
class HeartShape:
    """One phase of one heart; lengths in mm."""

    lv_radius: float  # of the cavity, at its widest
    lv_apex: float  # w of the cavity's tip
    base: float  # w of the mitral valve
    wall: float  # thickness of the lateral wall
    septum: float  # thickness of the septum
    apical_wall: float  # thickness at the apex, as a part of the wall's
    septal_flattening: (
        float  # septal radius of the LV as a part of the lateral one: below 1 the septum is flat
    )
    rv_width: float  # from the long axis of the RV, on the LV's septal border, to its free wall
    rv_height: float  # half the anterior-inferior extent
    rv_apex: float  # w of the RV's tip
    rv_base: float  # w of the tricuspid valve
    rv_wall: float
    outflow_radius: float  # of the RV outflow tract and the pulmonary trunk
    la_radius: float
    ra_radius: float
    aorta_radius: float
    septal_defect: float  # radius of a hole between the atria, 0 for none
    papillary_radius: float
    fat: float  # epicardial fat


@dataclass(frozen=True)
class HeartFields:
    """Signed distances in mm, negative inside, at the same points."""

    lv: np.ndarray  # cavity, papillary muscles included
    myo: np.ndarray  # cavity and myocardium of the LV
    rv: np.ndarray  # cavity
    rv_wall: np.ndarray  # cavity and free wall
    left_atrium: np.ndarray
    right_atrium: np.ndarray
    aorta: np.ndarray
    pulmonary: np.ndarray
    papillary: np.ndarray
    valves: np.ndarray
    groove: np.ndarray  # fat between atria and ventricles
    outside: np.ndarray  # the whole heart without its fat


def contract(shape: HeartShape, lv_ef: float, rv_ef: float) -> HeartShape:
    """The heart at end of systole.

    The base moves towards the apex; the LV's radius follows from its ejection fraction, its wall's thickness from the
    myocardium keeping its volume. The atria fill while the ventricles empty.

    Args:
      lv_ef, rv_ef: ejection fractions, 0 to 1.
    """
    length = shape.lv_apex - shape.base
    shortening = 0.26 * lv_ef
    es_length = length * (1 - shortening)
    radius = shape.lv_radius * np.sqrt((1 - lv_ef) / (1 - shortening))

    def thickened(wall: float) -> float:
        return float(
            np.sqrt(radius**2 + ((shape.lv_radius + wall) ** 2 - shape.lv_radius**2) * length / es_length)
            - radius
        )

    base = shape.lv_apex - es_length
    rv_length = shape.rv_apex - shape.rv_base
    rv_shortening = 0.38 * rv_ef
    rv_base = shape.rv_apex - 1 - rv_length * (1 - rv_shortening)
    rest = (1 - rv_ef) / (1 - rv_shortening)
    return replace(
        shape,
        lv_radius=float(radius),
        base=float(base),
        wall=thickened(shape.wall),
        septum=thickened(shape.septum),
        septal_flattening=1 - 1.1 * (1 - shape.septal_flattening),
        rv_width=float(shape.rv_width * rest**0.55),
        rv_height=float(shape.rv_height * rest**0.33),
        rv_apex=shape.rv_apex - 1,
        rv_base=float(rv_base),
        rv_wall=shape.rv_wall * 1.3,
        outflow_radius=shape.outflow_radius * 0.85,
        la_radius=shape.la_radius * 1.12,
        ra_radius=shape.ra_radius * 1.1,
        papillary_radius=shape.papillary_radius * 1.2,
    )


def heart_fields(shape: HeartShape, wobble: Wobble, points: Points) -> HeartFields:
    """Every structure's distance at these points of the heart frame.

    Args:
      shape: the phase.
      wobble: makes the shapes irregular; the same for both phases.
      points: (u, v, w) in mm.
    """
    s = shape
    u, v, w = p = wobble(points)
    one = np.float32(1)

    # LV: an ellipsoid, fuller towards the base than towards the apex, flatter on the septal side
    length = s.lv_apex - s.base
    widest = s.base + 0.28 * length
    septal = np.where(u < 0, np.float32(s.septal_flattening), one)
    along = np.where(w > widest, np.float32(s.lv_apex - widest), np.float32(0.62 * length))
    endo = ellipsoid(u, v, w - widest, (s.lv_radius * septal, s.lv_radius, along))
    outer = s.lv_radius * s.septal_flattening + s.septum
    across = np.where(u < 0, np.float32(outer), np.float32(s.lv_radius + s.wall))
    apex = s.lv_apex + s.apical_wall * s.wall - widest
    along = np.where(w > widest, np.float32(apex), np.float32(0.62 * length + s.wall))
    epi = ellipsoid(u, v, w - widest, (across, s.lv_radius + s.wall, along))
    mitral = s.base - w + 0.06 * v
    lv = smooth_max(endo, mitral, 2.0)
    myo = smooth_max(epi, mitral, 2.0)

    # RV: an ellipsoid beside the LV and its outflow tract, less the LV; the tricuspid valve is tilted
    centre = -(outer - 4.0)
    rv_widest = s.rv_base + 0.12 * (s.rv_apex - s.rv_base)
    along = np.where(w > rv_widest, np.float32(s.rv_apex - rv_widest), np.float32(60))
    lean = 0.16 * (w - rv_widest)  # towards the septum on the way to the apex
    across = np.where(u - lean < centre, np.float32(s.rv_width), np.float32(outer))
    body = ellipsoid(
        u - centre - lean, v - 3 - 0.0035 * (u - centre) ** 2, w - rv_widest, (across, s.rv_height, along)
    )
    tract_start = (centre - 3, -0.45 * s.rv_height, s.rv_base + 22.0)
    tract_end = (centre + 10, -0.72 * s.rv_height - 4, s.rv_base - 16.0)
    tract = capsule(p, tract_start, tract_end, s.outflow_radius)
    tricuspid = s.rv_base - w + 0.17 * (v - 4)
    whole = smooth_min(body, tract, 10.0)
    free = smooth_max(whole, -epi, 5.0)
    rv = smooth_max(free, tricuspid, 3.0)
    rv_wall = np.maximum(whole - s.rv_wall, tricuspid)

    # behind the valves
    la_centre = (3.0, 4.0, s.base - 0.86 * s.la_radius)
    left = ellipsoid(
        u - la_centre[0],
        v - la_centre[1],
        w - la_centre[2],
        (s.la_radius * 1.14, s.la_radius * 1.08, s.la_radius * 0.96),
    )
    veins = smooth_min(
        capsule(p, (10, -8, la_centre[2] - 8), (52, -20, la_centre[2] - 30), 6.5),
        capsule(p, (8, 12, la_centre[2] - 10), (44, 22, la_centre[2] - 38), 6.0),
        5.0,
    )
    left_atrium = np.maximum(smooth_min(left, veins, 6.0), -mitral + 0.5)
    ra_centre = (centre - 0.22 * s.rv_width, 10.0, s.rv_base - 0.74 * s.ra_radius)
    right = ellipsoid(
        u - ra_centre[0],
        v - ra_centre[1],
        w - ra_centre[2],
        (s.ra_radius * 1.1, s.ra_radius * 1.05, s.ra_radius),
    )
    cava = capsule(p, ra_centre, (ra_centre[0] + 16, -70, ra_centre[2] - 34), 9.0)
    right_atrium = np.maximum(smooth_min(right, cava, 6.0), -tricuspid + 0.5)
    right_atrium = smooth_max(right_atrium, 2.2 - left_atrium, 3.0)
    if s.septal_defect > 0:
        hole = (0.5 * (la_centre[0] + ra_centre[0] - 6), 6.0, 0.5 * (la_centre[2] + ra_centre[2]))
        away = (hole[0] - 10, *hole[1:])
        right_atrium = np.minimum(right_atrium, capsule(p, away, (hole[0] + 12, *hole[1:]), s.septal_defect))
    root = (-10.0, -0.60 * s.lv_radius - 4, s.base + 2)
    aorta = capsule(p, root, (-24, -44, s.base - 34), s.aorta_radius)
    aorta = smooth_min(
        aorta, capsule(p, (-24, -44, s.base - 34), (-34, -95, s.base - 46), s.aorta_radius), 6.0
    )
    aorta = np.maximum(aorta, -mitral)
    trunk_end = (tract_end[0] + 20, tract_end[1] - 26, tract_end[2] - 32)
    pulmonary = capsule(p, tract_end, trunk_end, s.outflow_radius * 0.9)
    pulmonary = np.maximum(pulmonary, 3.0 - aorta)
    left_atrium = np.maximum(left_atrium, 3.0 - np.minimum(aorta, pulmonary))
    right_atrium = np.maximum(right_atrium, 3.0 - np.minimum(aorta, pulmonary))

    # papillary muscles, along the wall from the middle of the cavity towards the apex
    papillary = np.full_like(lv, np.float32(1e3))
    for angle, size in ((-0.85, 1.0), (1.65, 1.12)):  # anterolateral, posteromedial
        cos, sin, r = np.cos(angle), np.sin(angle), s.lv_radius
        top = (0.58 * r * cos, 0.58 * r * sin, s.base + 0.36 * length)
        foot = (0.50 * r * cos, 0.50 * r * sin, s.base + 0.84 * length)
        papillary = np.minimum(papillary, capsule(p, top, foot, s.papillary_radius * size))
    leaflet = np.abs(mitral + 5 * smoothstep(-endo, 0, 0.8 * s.lv_radius) - 1) - 0.7
    leaflet = np.maximum(leaflet, endo - 1)
    tricuspid_leaflet = np.maximum(np.abs(tricuspid + 4 * smoothstep(-free, 0, 14)) - 0.6, free)
    groove_radius = s.lv_radius + 0.7 * s.wall
    groove = np.hypot(np.hypot(u, v) - groove_radius, w - s.base + 3) - 5.5
    rv_groove = np.hypot(np.maximum(whole, -60) - 0.0, tricuspid + 1) - 6.0
    groove = np.minimum(groove, np.maximum(rv_groove, -epi))

    outside = np.minimum(
        np.minimum(epi, smooth_max(whole - s.rv_wall, tricuspid - 6, 6.0)),
        np.minimum(left_atrium, right_atrium) - 2.0,
    )
    outside = np.minimum(np.where(w < s.base - 2, outside + 1, outside), np.minimum(aorta, pulmonary) - 2.0)
    return HeartFields(
        lv=lv,
        myo=myo,
        rv=rv,
        rv_wall=rv_wall,
        left_atrium=left_atrium,
        right_atrium=right_atrium,
        aorta=aorta,
        pulmonary=pulmonary,
        papillary=np.maximum(papillary, endo),
        valves=np.minimum(leaflet, tricuspid_leaflet),
        groove=groove,
        outside=outside,
    )


def label_map(fields: HeartFields) -> UInt8[np.ndarray, "*at"]:
    """Labels of the points at which `fields` was evaluated, uint8: the papillary muscles belong to the cavity."""
    labels = np.full(fields.lv.shape, BACKGROUND, np.uint8)
    labels[fields.rv < 0] = RV.id
    labels[fields.myo < 0] = MYO.id
    labels[fields.lv < 0] = LV.id
    return labels
