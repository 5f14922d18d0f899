"""What happens in the built-in stories: one program, told from START to the end.

Notation: ``[list]`` chooses from a list of the lexicon, ``[a list]`` does so with its article, and
``[list=name]`` remembers the choice; ``{name}`` tells it again and ``{hero.he}`` a form of it;
``<x|2: y>`` chooses between texts, y twice as often; ``@PART`` continues with another part.
"""

from __future__ import annotations

PARTS = {
    "START": "@WHO <@LIKES @FRIEND|@FRIEND> @WHEN, @TALE @CLOSE",
    "WHO": """
        <4: Once upon a time, there was|2: Long ago, there lived|2: In a [size] [color] house, there lived>
        [a trait] <3: girl named [girl=hero]|3: boy named [boy=hero]|bear named [child=hero]
        |bunny named [child=hero]|monkey named [child=hero]>.
        """,
    "LIKES": """
        {hero} <2: loved to [hobby] and <2: eat [taste] [food]|play [game]>
        |liked to <2: count [color] [plant]|play with [size] [animals]>>.
        """,
    "FRIEND": "{hero.His} best friend was [a size] [color] [pet=pet] named [friend=friend].",
    "WHEN": "<3: One [weather] [time]|On [a weather] [weekday]>",
    "TALE": "<@LOST|@SHARE|@RESCUE|@FEAR|@BUILD|@SECRET|@NEWCOMER|@QUARREL|@RACE|@SEED>",
    "LOST": """
        {hero} could not find {hero.his} [color] [thing=thing]. {hero.He} looked [where] the [indoors] and
        [where] the [outdoors], but it was not there. {hero} felt [bad]. "Do not <cry|worry|give up>,
        {hero}," said {hero.his} [family=family]. "Let us ask the [trait] [helper=helper]." The {helper} [did]
        and said, "I saw it near the [place=place]." So they [moved] to the {place}. There,
        [where] [a look] [outdoors], was the {thing}!
        """,
    "SHARE": """
        {hero} had some [taste] [food=food]. {hero.He} wanted to eat all the {food} alone near the
        [place=place]. Then {friend} came. {friend} had only [number] [color] [plant].
        "<2: May I have some {food}|2: Can we share the {food}|Is that for me>?" {friend} [said] [manner].
        {hero} saw that {friend} was [bad]. "[oh], {friend}, take the {food}," {hero} said. They sat [where]
        [a size] [outdoors] and ate the {food} together. [a-cap trait] [helper=helper] saw them
        and gave them [a color] [thing].
        """,
    "RESCUE": """
        {hero} heard [a size] noise near the [place=place]. [a-cap color] [animal=animal] was stuck [where]
        [a look] [outdoors]. "Please <3: help|come here and help> me!" the {animal} [said]. {hero} pulled
        [manner], but the {animal} did not move. So {friend} [moved] home and found [a look] [thing=thing]
        [where] the [indoors]. With the {thing}, they helped the {animal} out. The {animal} felt [good] and
        gave them [number] [plant].
        """,
    "FEAR": """
        {hero} was afraid of [fear=fear]. {hero.He} hid [where] the [indoors] and felt [bad]. "I was afraid
        of {fear} too," {hero.his} [family=family] said. "<2: Hold|Take> this [color] [thing=thing] and
        [hobby] [manner]." {hero} took the {thing} and [moved] to the [place=place]. {friend} came too. They
        saw [a color] [animal] and [number] [size] [animals]. {hero} held the {thing} and [did].
        "I am not afraid of {fear} now," {hero} [said].
        """,
    "BUILD": """
        {hero} wanted to build [a size] [built=built]. "We need [stuff=stuff] and [number] [color] [plant],"
        {hero} told {friend}. They found the {stuff} near the [place=place], [where] [a look]
        [outdoors]. {hero} worked [manner], but the {built} fell down! {friend} was [bad].
        "<2: Let us try again|We can help you>," said the [trait] [helper=helper]. The {helper} brought more
        {stuff} and [a look] [thing]. Soon the {built} was [size] and [color]. {friend} [did], and they ate
        [taste] [food] in the {built}.
        """,
    "SECRET": """
        {hero} found [a look] [color] [thing=thing] [where] the [indoors]. "It is a secret," said {hero.his}
        [family=family]. "The {thing} is for the [trait] [helper=helper]." {hero} and {friend} [moved] to the
        [place=place] with the {thing}. {hero} wanted to tell [a size] [animal], but {hero.he} only
        [did] and [did]. The {helper} sat [where] [a size] [outdoors]. "[oh]! I love this {thing}!" the
        {helper} [said] and gave them some [taste] [food].
        """,
    "NEWCOMER": """
        {hero} met [a trait] [animal=animal] near the [place=place]. The {animal} sat alone [where] [a size]
        [outdoors] and felt [bad]. "Do you want to play [game=game]?" {hero} asked [manner].
        "I do not know {game}," the {animal} [said]. {friend} [did] and showed the {animal} how to play
        {game} with [a color] [thing=thing]. Soon the {animal} [moved] with the {thing} and [did]. Then
        {hero.his} [family=family] brought [taste] [food] for the {animal}.
        """,
    "QUARREL": """
        {hero} and {friend} both wanted the [color] [thing=thing]. "It is my {thing}!" {hero} [said].
        {friend} pulled [manner], and the {thing} broke. {friend} felt [bad] and hid [where] the [outdoors].
        {hero} felt [bad] too. So {hero.he} [moved] to the [place=place] and found {friend} near [number]
        [color] [animals]. "I am sorry, {friend}," {hero} said [manner]. They took the {thing} to the [trait]
        [helper=helper], and the {helper} fixed it with [stuff] and [color] [stuff].
        """,
    "RACE": """
        {hero} ran a race to the [place=place] with [a trait] [animal=animal]. "I will win the [color]
        [thing=thing]!" the {animal} [said]. {hero} [moved] past [a size] [outdoors], and the {animal} [moved]
        past [a color] [animal]. Then {friend} fell down and was [bad]. {hero} stopped and helped
        {friend} [manner]. The {animal} saw this and came back. They all [moved] to the {place} together.
        The [helper=helper] [did] and said, "Take the {thing} and share it."
        """,
    "SEED": """
        {hero} planted [number] [size] seeds near the [place=place]. "[oh]! When will they grow?" {friend}
        asked [manner]. "You must wait," said {hero.his} [family=family]. So {hero} brought water in
        [a color] [thing=thing]. [a-cap color] [animal=animal] wanted to eat the seeds, but {friend} [moved]
        after the {animal}. {hero} was [bad], but {hero.he} waited [manner] with the {thing}. At last, there
        were [color] [plant=plant] [where] the [outdoors]. {hero} gave the {plant} to the [trait]
        [helper=helper], and the {helper} gave them some [taste] [food].
        """,
    "CLOSE": """
        <2: {hero} was [good] and {friend} [did].|2: "You are [a trait] [dear], {hero}," {friend} [said].
        |{friend} was [good] and [said], "Thank you, {hero}!">
        <2: That day, {hero} learned that it is [fine] to [virtue].
        |2: From that day on, {hero} and {friend} went to the {place} every [weekday].
        |At [time], {hero} told {hero.his} [family] about the {place} and [did].>
        """,
}
