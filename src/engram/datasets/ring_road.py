"""Loop detectors on a simulated ring road: the Intelligent Driver Model.

Every driver follows the one ahead (Treiber, Hennecke and Helbing 2000, "Congested
traffic states in empirical observations and microscopic simulations", Physical
Review E 62, 1805). At speed v, at gap s, closing in at dv = v - v_leader:

    dv/dt = a [ 1 - (v / v0)^4 - (s* / s)^2 ],   s* = s0 + v T + v dv / (2 sqrt(a b))

Above a critical density this flow is unstable: a small hesitation grows into a
stop-and-go wave, which travels upstream while the vehicles travel downstream.

The numbers are the same on every machine. Floating point is used elementwise, and
only through + - * / and sqrt, which IEEE 754 rounds correctly; whatever is summed is
an integer; random numbers are the raw bits of PCG64.

Letters in shape comments: D days, V vehicles on all rings together, N detectors.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from engram.datasets import readings as readings_form

Array = np.ndarray
Bits = np.random.PCG64

SEED = 1805
DAYS = 21  # simulated side by side
WEEKEND = (2, 3)  # days of a week from Thursday: so the last four are not all free
DETECTORS = 24
INTERVAL = 5  # minutes per reading
DAY = 24 * 60  # minutes
CHECKSUM = "8d7d5b95f4127c27c134e730cb31f806c8621114a7cfc0439786b81f6340f2a5"

RING = 9600.0  # m
STRETCH = RING / DETECTORS  # m from one detector to the next
LENGTH = 5.0  # m, of a vehicle
ACCELERATION = 0.5  # m/s^2, a
DECELERATION = 1.5  # m/s^2, b, comfortable
STANDSTILL_GAP = 3.0  # m, s0
DESIRED_SPEED = (26.0, 32.0)  # m/s, v0, uniform over drivers
TIME_GAP = (1.0, 1.6)  # s, T, uniform over drivers
HESITATION = 0.1  # m/s^2, largest acceleration noise of a driver
LAPSE = 1 / 3000  # chance that a driver brakes for nothing instead
LAPSE_BRAKING = 1.0  # m/s^2
ATTENTION = 10  # s for which a driver's noise stays the same
STANDING = 0.1  # m/s, slower than this is standing
TRIP = 60  # minutes that a vehicle stays on average
STUCK = 8  # times longer if it stands

SPEED_LIMIT = 120 / 3.6  # m/s
CLOSED = 0.01  # m/s, on a closed stretch: not 0, which v / v0 could not bear
CURVE = {7: 90 / 3.6, 8: 90 / 3.6}  # detector stretch: m/s
PEAK = 300.0  # vehicles on the ring at the peak of a day of factor 1
NIGHT = 2  # vehicles on the ring, at least
HOURS = np.array([-1, 0, 4.5, 6, 7.5, 9, 10.5, 14.5, 16.5, 18.5, 20.5, 23, 24, 25])
SHARES = np.array(
    [0.03, 0.015, 0.007, 0.25, 1, 0.95, 0.55, 0.55, 1, 1.05, 0.45, 0.1, 0.04, 0.02]
)  # of PEAK


def uniform(bits: Bits, low: float, high: float, *shape: int) -> Array:
    """Draw numbers from [low, high) out of integer bits alone."""
    # 53 bits fill the mantissa of a double: the quotient is exact.
    raw = bits.random_raw(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    return low + (high - low) * ((raw >> np.uint64(11)) / 2.0**53)


@dataclass
class Traffic:
    """The vehicles of all days, day after day, each directly behind its leader."""

    day: Array  # [V] integers
    x: Array  # [V] m, front bumper, in [0, RING)
    v: Array  # [V] m/s
    v0: Array  # [V] m/s, desired speed
    time_gap: Array  # [V] s

    def __post_init__(self) -> None:
        """Find the leaders: the next vehicle, or the day's first ahead of its last."""
        self.first = np.searchsorted(self.day, self.day, "left")  # [V]
        last = np.searchsorted(self.day, self.day, "right") - 1  # [V]
        here = np.arange(len(self.day))
        self.leader = np.where(here == last, self.first, here + 1)  # [V]

    def fields(self) -> tuple[Array, ...]:
        """List what makes a vehicle, in the order of the constructor."""
        return self.day, self.x, self.v, self.v0, self.time_gap

    def gap(self) -> Array:
        """Measure from each front bumper to the leader's rear bumper, in m."""
        ahead = self.x.take(self.leader) - self.x
        return ahead + RING * (ahead <= 0) - LENGTH  # [V]

    def site(self) -> Array:
        """Number the stretch each vehicle is on, over all days."""
        return self.day * DETECTORS + (self.x / STRETCH).astype(np.int64)  # [V]


def acceleration(v: Array, dv: Array, s: Array, v0: Array, time_gap: Array) -> Array:
    """Return dv/dt of the Intelligent Driver Model, in m/s^2."""
    closing = v * dv / (2 * np.sqrt(ACCELERATION * DECELERATION))
    s_star = STANDSTILL_GAP + np.maximum(v * time_gap + closing, 0)
    # A limit that drops ahead is met by braking at 1.4 m/s^2, not by a crash stop.
    free, near = np.minimum(v / v0, 1.4), s_star / s
    return ACCELERATION * (1 - free * free * free * free - near * near)


def step(traffic: Traffic, limit: Array, noise: Array) -> None:
    """Move all vehicles by one second: speeds first, then the mean of old and new."""
    v = traffic.v
    dv = v - v.take(traffic.leader)
    v0 = np.minimum(traffic.v0, limit)
    a = acceleration(v, dv, traffic.gap(), v0, traffic.time_gap)
    traffic.v = np.maximum(v + a + noise, 0)
    x = traffic.x + (v + traffic.v) / 2
    traffic.x = x - RING * (x >= RING)


def hesitate(bits: Bits, count: int) -> Array:
    """Draw acceleration noise: small for most drivers, a rare one brakes."""
    chance = uniform(bits, 0, 1, count)  # [V]
    return np.where(chance < LAPSE, -LAPSE_BRAKING, HESITATION * (2 * chance - 1))


def start(days: int, bits: Bits) -> Traffic:
    """Spread the vehicles of midnight evenly."""
    day, place = np.divmod(np.arange(days * NIGHT), NIGHT)
    v0 = uniform(bits, *DESIRED_SPEED, days * NIGHT)
    gaps = uniform(bits, *TIME_GAP, days * NIGHT)
    return Traffic(day, place * RING / NIGHT, v0 * 0.9, v0, gaps)


def turn_over(traffic: Traffic, target: Array, bits: Bits) -> Traffic:
    """Let some vehicles leave, then let others into the largest gaps up to a target."""
    trip = np.where(traffic.v < STANDING, STUCK * TRIP, TRIP)  # few exits in a queue
    stays = uniform(bits, 0, 1, len(traffic.day)) >= 1 / trip
    stays |= traffic.first == np.arange(len(stays))  # so that no ring is ever empty
    traffic = Traffic(*(field[stays] for field in traffic.fields()))
    day, x, v, gap = traffic.day, traffic.x, traffic.v, traffic.gap()

    order = np.lexsort((-gap, day))  # [V] each day's vehicles, largest gap first
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    wanted = target - np.bincount(day, minlength=len(target))  # [D]
    # Room for one more, who takes over the follower's speed: not onto a jam's tail.
    # 12 m leave both of them more than the standstill gap.
    room = (gap > 12 + v) & (v <= v.take(traffic.leader) + 1)
    (behind,) = np.nonzero(room & (rank - traffic.first < wanted[day]))
    place = x[behind] + (gap[behind] + LENGTH) / 2
    entering = (
        day[behind],
        place - RING * (place >= RING),
        v[behind],
        uniform(bits, *DESIRED_SPEED, len(behind)),
        uniform(bits, *TIME_GAP, len(behind)),
    )
    pairs = zip(traffic.fields(), entering, strict=True)
    return Traffic(*(np.insert(old, behind + 1, new) for old, new in pairs))


def demand(bits: Bits, days: int) -> Array:
    """Draw how many vehicles each day wants on the ring, minute by minute."""
    weekend = np.isin(np.arange(days) % 7, WEEKEND)
    factor = uniform(bits, 0.88, 1.12, days) * np.where(weekend, 0.65, 1.0)  # [D]
    late = uniform(bits, -0.4, 0.4, days)  # [D] hours
    hour = np.arange(DAY)[:, None] / 60 - late  # [DAY, D]
    k = np.searchsorted(HOURS, hour, "right") - 1
    slope = (SHARES[k + 1] - SHARES[k]) / (HOURS[k + 1] - HOURS[k])
    share = SHARES[k] + slope * (hour - HOURS[k])
    return np.maximum(PEAK * factor * share, NIGHT).astype(np.int64)  # [DAY, D]


def limits(bits: Bits, days: int) -> Array:
    """Draw incidents, and return the speed limit of every minute, day and stretch."""
    limit = np.full((DAY, days, DETECTORS), SPEED_LIMIT)
    for stretch, speed in CURVE.items():
        limit[:, :, stretch] = speed
    for day in range(days):
        for chance, at, lasting, where, speed in uniform(bits, 0, 1, 4, 5):
            closed, slow = chance < 0.15, 0.15 <= chance < 0.6
            begin = int(300 + at * 960)  # from 5:00 to 21:00
            end = begin + 10 + int((10 if closed else 30) * lasting)
            if closed or slow:
                here = limit[begin:end, day, int(where * DETECTORS)]
                here[:] = CLOSED if closed else 3 + 7 * speed
    return limit  # [DAY, D, N]


def readings(count: Array, total: Array, stood: Array, days: int) -> Array:
    """Turn counts and sums of mm/s into tenths of km/h, all in integers."""
    some = np.maximum(count, 1)  # [288, D N], like the arguments
    mean = np.maximum((total * 36 + some * 500) // (some * 1000), 1)
    # The stretch before a detector has the number of the detector before it.
    by_day = stood.reshape(-1, days, DETECTORS)
    waiting = np.roll(by_day, 1, axis=2).reshape(stood.shape) > 0
    value = np.where(count > 0, mean, np.where(waiting, 0, -1))
    value = value.reshape(-1, days, DETECTORS).swapaxes(0, 1)  # [D, 288, N]
    return value.reshape(-1, DETECTORS).astype(np.int16)


def simulate(days: int = DAYS, seed: int = SEED) -> Array:
    """Simulate the days and return what the detectors read.

    Args:
        days: how many days, each from midnight to midnight.
        seed: of all random numbers.

    Returns:
        [days * 288, 24] int16: the mean speed of the vehicles that passed a detector
        in five minutes, in 0.1 km/h; 0 where none passed because they stood on the
        stretch before it; -1 where none passed and none stood.
    """
    bits = Bits(seed)
    target, limit = demand(bits, days), limits(bits, days)
    shape = (DAY // INTERVAL, days * DETECTORS)
    count, total, stood = (np.zeros(shape, np.int64) for _ in range(3))
    traffic = start(days, bits)
    for minute in range(DAY):
        traffic = turn_over(traffic, target[minute], bits)
        row, here = minute // INTERVAL, traffic.site()
        np.add.at(stood[row], here[traffic.v < STANDING], 1)
        for second in range(60):
            if second % ATTENTION == 0:
                noise = hesitate(bits, len(here))
            step(traffic, limit[minute].ravel().take(here), noise)
            before, here = here, traffic.site()
            (passed,) = np.nonzero(before != here)
            speed = (traffic.v[passed] * 1000 + 0.5).astype(np.int64)  # mm/s
            np.add.at(count[row], here[passed], 1)
            np.add.at(total[row], here[passed], speed)
    return readings(count, total, stood, days)


class RingRoad(readings_form.ReadingsBuilder):
    """Three weeks of 24 loop detectors on a ring road of 9.6 km, 5-minute speeds.

    Detector `n + 1` is one stretch of 400 m downstream of detector `n`. `weights` links
    each detector with its two neighbours.
    """

    DESCRIPTION = "Simulated speeds (km/h) of 24 detectors on a ring, every 5 minutes."
    CITATION = (
        "M. Treiber, A. Hennecke, D. Helbing. Congested traffic states in empirical"
        " observations and microscopic simulations. Physical Review E 62, 1805, 2000."
    )
    METADATA = {
        "unit": "km/h",
        "interval_minutes": INTERVAL,
        "first_slot": 0,
        "missing": [],  # a zero is a real standstill
        "layout": "ring",
    }

    def _split_generators(self, dl_manager):
        return {"detectors": self._generate_examples()}

    def _generate_examples(self):
        tenths = simulate()
        found = hashlib.sha256(tenths.astype("<i2").tobytes()).hexdigest()
        if found != CHECKSUM:
            raise readings_form.ReadingsError(
                "this machine simulates another traffic than every machine before."
                f" Expected sha256 {CHECKSUM}, received {found}; NumPy {np.__version__}"
            )
        speed = np.where(tenths < 0, np.nan, tenths / 10.0)
        near = np.eye(DETECTORS)
        weights = np.roll(near, 1, axis=1) + np.roll(near, -1, axis=1)
        names = [f"km {n * STRETCH / 1000:.1f}" for n in range(DETECTORS)]
        yield from self._examples(names, speed, weights)
