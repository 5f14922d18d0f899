"""What happens in the built-in stories: one program, told from START to the end.

Notation: ``[list]`` chooses from a list of the lexicon, ``[a list]`` does so with its article, and
``[list=name]`` remembers the choice; ``{name}`` tells it again and ``{hero.he}`` a form of it;
``<x|2: y>`` chooses between texts, y twice as often; ``@PART`` continues with another part.
"""

from __future__ import annotations

PARTS = {
    "START": "@WHO @FRIEND @WHEN, @TALE <In the end, @CLOSE|After that, @SCENE>",
    "WHO": """
        <3: Once upon a time, there was|2: Long ago, there lived|3: In [a size] [color] house, there lived>
        [a trait] <3: girl named [girl=hero]|3: boy named [boy=hero]|bear named [child=hero]
        |bunny named [child=hero]|monkey named [child=hero]>.
        """,
    "FRIEND": """
        <2: {hero.His} friend was [a size] [color] [pet=pet] named [friend=friend].
        |{hero} liked to [hobby] and [pastime] with [a color] [pet=pet] named [friend=friend].
        |{hero} and [a trait] [pet=pet] named [friend=friend] [ate] [taste] [food] every [weekday].>
        """,
    "WHEN": "<2: One [weather] [time]|On [a weather] [weekday]>",
    "TALE": """
        <@LOST|@SHARE|@RESCUE|@FEAR|@BUILD|@SECRET|@NEWCOMER|@QUARREL|@RACE|@SEED
        |4: @VISIT|4: @DREAM|4: @KITE>
        """,
    "LOST": """
        {hero} lost [a look] [color] [thing=thing]. {hero.He} looked [where] the [size] [indoors] and
        [where] the [look] [outdoors]. "Do not <2: cry|worry|give up>, {hero}," [said] {hero.his} [trait]
        [family=family]. {hero} [moved] to the [place=place] and [found] [a trait] [helper=helper]. The
        {helper} [did] [manner] and [said], "[oh]! I saw the {thing} with [number] [color] [animals]."
        {hero} [found] the {thing} [where] the [outdoors] and [gave] the {helper} [taste] [food].
        """,
    "SHARE": """
        {hero} had [taste] [food=food]. {hero.He} [moved] [manner] to the [place=place] and [wanted] to eat
        the {food} alone. But {friend} had only [number] [color] [plant] and [felt] [bad]. "<2: May I
        taste|2: Can we share|Will you give me> the {food}?" {friend} [said] [manner]. {hero} [stayed]
        [where] [a size] [outdoors] and [felt] [bad]. "[oh], {friend}, take the {food}," {hero} [said]
        [manner]. [a-cap trait] [helper=helper] saw them and [gave] them [a look] [color] [thing].
        """,
    "RESCUE": """
        {hero} heard [a look] noise near the [place=place]. [a-cap size] [color] [animal=animal] was stuck
        [where] [a look] [outdoors]. "[oh]! Help me!" the {animal} [said] [manner]. {hero} [felt] [bad] and
        pulled [manner]. [soon] {friend} [moved] home and [found] [a color] [thing=thing] [where] the
        [indoors]. The {thing} helped, and the {animal} [did]. The {animal} [felt] [good] and [gave] {hero}
        [number] [color] [plant].
        """,
    "FEAR": """
        {hero} was afraid of [fear=fear]. {hero.He} [stayed] [where] the [color] [indoors] and [felt] [bad].
        "I was afraid of {fear} too," {hero.his} [trait] [family=family] [said]. "Hold this [look]
        [thing=thing] and [hobby] [manner]." {hero} and {friend} [moved] to the [place=place] with the
        {thing}. They [found] [a size] [color] [animal] and [number] [look] [plant]. {hero} [did] [manner].
        "I am not afraid of {fear} now!" {hero} [said].
        """,
    "BUILD": """
        {hero} wanted to build [a size] [built=built]. "We need [color] [stuff=stuff] and [number] [look]
        [plant]," {friend} [said]. They [found] the {stuff} near the [place=place], [where] [a color]
        [outdoors]. {hero} worked [manner], but the {built} fell down! {friend} [felt] [bad]. [soon]
        [a trait] [helper=helper] [moved] by with [a look] [thing]. The {helper} [did] and fixed the {built}
        with [size] [stuff]. [soon] the {built} looked [look] and [color].
        """,
    "SECRET": """
        {hero} found [a look] [color] [thing=thing] [where] the [indoors]. "The {thing} is a secret for the
        [trait] [helper=helper]," {hero.his} [family=family] [said] [manner]. {hero} [moved] to the
        [place=place] with the {thing}. {hero.He} met [a size] [color] [animal], but {hero.he} only [did]
        and [did]. The {helper} [stayed] [where] [a look] [outdoors] and [felt] [bad]. "[oh]! I love this
        {thing}!" the {helper} [said] and [gave] {friend} [taste] [food].
        """,
    "NEWCOMER": """
        {hero} met [a trait] [color] [animal=animal] near the [place=place]. The {animal} [stayed] [where]
        [a size] [outdoors] and [felt] [bad]. "Let us play [game=game]!" {hero} [said] [manner]. But the
        {animal} did not know {game}. {friend} [did] and played {game} [manner] with [a look] [thing=thing].
        [soon] the {animal} took the {thing} and [did]. "You are [trait], {hero}," the {animal} [said].
        [soon] they [ate] [taste] [food] and [taste] [food].
        """,
    "QUARREL": """
        {hero} and {friend} both [found] [a color] [thing=thing]. "It is my [look] {thing}!" {hero} [said].
        {friend} pulled [manner], and the {thing} broke. {friend} [felt] [bad] and [stayed] [where] the
        [size] [outdoors]. {hero} [felt] [bad] and [moved] to the [place=place]. There {hero.he} found
        {friend} with [number] [color] [animals]. "I am sorry, {friend}," {hero} [said]. [a-cap trait]
        [helper=helper] fixed the {thing} with [color] [stuff].
        """,
    "RACE": """
        {hero} ran a race to the [place=place] with [a trait] [color] [animal=animal]. "I will win the
        [look] [thing=thing]!" the {animal} [said] [manner]. {hero} [moved] by [a size] [outdoors], and the
        {animal} [moved] by [number] [color] [plant]. [soon] {friend} fell and [felt] [bad]. {hero} stopped
        and [did] [manner]. The {animal} came back with [taste] [food]. "You are [trait]," [a trait]
        [helper=helper] [said]. "Share the {thing}, {hero}!"
        """,
    "SEED": """
        {hero} planted [number] [color] seeds near the [place=place]. "[oh]! When will they grow?" {friend}
        [said] [manner]. {hero.His} [trait] [family=family] brought water and [a look] [thing=thing].
        [a-cap size] [color] [animal=animal] [wanted] to eat the seeds, but {friend} [moved] after the
        {animal}. {hero} [felt] [bad] and waited [manner] with the {thing}. [soon] there were [look]
        [plant=plant] [where] the [outdoors]. {hero} [gave] the {plant} to [a trait] [helper].
        """,
    "VISIT": """
        {hero} visited {hero.his} [trait] [family=family] near the [place=place]. They [ate] [taste] [food]
        [where] the [outdoors], and {friend} [did] for {hero} and {hero.his} {family}.
        """,
    "DREAM": """
        {hero} dreamed of [a size] [color] [animal=animal]. The {animal} [moved] to the [place=place] and
        [did] [manner]. {hero} told {friend} about the {animal}.
        """,
    "KITE": """
        {friend} [moved] to the [place=place] with [a look] [color] [thing=thing]. "[oh]! May I hold the
        {thing}?" {hero} [said] [manner]. {friend} [gave] {hero} the {thing}.
        """,
    "SCENE": """
        [a weather] wind blew near the {place}, and {hero} [felt] [bad]. {friend} [stayed] [where] [a size]
        [outdoors], but {hero} [found] [number] [color] [plant].
        <2: In the end, @CLOSE|At bedtime, @NIGHT>
        """,
    "NIGHT": """
        {hero} [stayed] [where] the [color] [indoors]. "[oh], you [ate] [taste] [food]!" {hero.his} [family]
        [said]. In the end, @CLOSE
        """,
    "CLOSE": """
        <2: {hero} [felt] [good] and {friend} [did] [manner].
        |2: "You are [a trait] [dear], {hero}," {friend} [said].
        |{friend} [felt] [good] and [said], "Thank you, {hero}!">
        <2: {hero} and {friend} learned that it is [fine] to [virtue] and [deed].
        |2: {hero.He} and {friend} [moved] to the {place} every [weekday].
        |That night, {hero} told {hero.his} [family] about the {place} and {friend} [did] [manner].>
        """,
}
